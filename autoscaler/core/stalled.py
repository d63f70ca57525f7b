"""Stalled groups: they hold work, and nothing of it moves. They are no supply, and teach nothing.

Rules:
1. Progress is any of: prompts computed, tokens generated, requests finished. Who holds nothing makes progress, too.
2. Stalled is who has made none for STALLED_AFTER_S; of prefill, for longer than two of the longest prompts could take.
3. Sequences that wait for remote KV are not in the hands of a decode group. A prefill group with an empty batch may
   be kept waiting by decode: it is stalled only if its peers move.
4. A pod is known by its UID. One that is not read keeps its record for a while; a controller that has just started
   begins to watch anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from autoscaler.core.groups import engines, known, named
from autoscaler.model import Histogram, Number, Observation, RoleFleet, Signals, State, Watched, WorkerSample
from autoscaler.settings import Settings
from perfmodel.prefill import prompt_ms
from perfmodel.profile import Profile
from policies.model import ROLES, Code, Detail, Missing, Reason, Role, Stage

STALLED_AFTER_S = 60.0
FORGET_S = 600.0


def watch(
    state: State, seen: Observation, signals: Signals, settings: Settings, profile: Profile
) -> tuple[State, Signals, tuple[Reason, ...]]:
    """Look at every engine's progress; the stalled ones by role. Linear in the samples."""
    stale_s = settings.spec.metrics.stale_after_s
    fresh = engines(worker for worker in seen.samples.workers if seen.now_s - worker.at_s <= stale_s)
    before = {one.uid: one for one in state.watched}
    found = [(worker, now) for worker in fresh if (now := _look(worker, before.get(worker.uid))) is not None]
    read = {worker.uid for worker, _ in found}
    absent = (one for one in state.watched if one.uid not in read and seen.now_s - one.at_s < FORGET_S)
    state = replace(state, watched=(*absent, *(now for _, now in found)))
    why: list[Reason] = []
    for role in ROLES:
        limit_s = stalled_after_s(role, profile)
        names = _stalled(seen, role, [pair for pair in found if pair[0].role is role], limit_s)
        if names:
            signals = signals.with_role(role, replace(signals[role], stalled=names))
            detail: Detail = {"groups": len(names), "named": named(names), "for_s": limit_s}
            why.append(Reason(Stage.OBSERVE, Code.GROUP_STALLED, role, detail))
    return state, signals, tuple(why)


@lru_cache(maxsize=256)
def stalled_after_s(role: Role, profile: Profile) -> float:
    """For how long nothing may move: decode moves with every step, prefill perhaps only when a prompt ends."""
    longest_s = prompt_ms(profile, profile.max_model_len) / 1e3 if role is Role.PREFILL else 0.0
    return max(STALLED_AFTER_S, 2 * longest_s)


def _look(worker: WorkerSample, before: Watched | None) -> Watched | None:
    """What is kept of a pod; None where it cannot be seen whether it holds work or moves."""
    counters = known((worker.prompt_tokens, worker.generation_tokens, worker.finished))
    if not counters or isinstance(worker.running, Missing):
        return None
    waiting = sum(known([worker.waiting])) - _deferred(worker)
    counted, held = sum(counters), worker.running > 0 or waiting > 0
    stands = before is not None and before.counted == counted and held and before.running + before.waiting > 0
    return Watched(
        uid=worker.uid,
        at_s=worker.at_s,
        moved_s=before.moved_s if before is not None and stands else worker.at_s,
        counted=counted,
        running=worker.running,
        waiting=max(0.0, waiting),
        prompt_tokens=_given(worker.prompt_tokens),
        queued=_times(worker.queue_time),
        first=_times(worker.ttft),
        itl=_times(worker.itl),
    )


def _deferred(worker: WorkerSample) -> float:
    split = worker.waiting_by_reason
    return 0.0 if worker.role is Role.PREFILL or isinstance(split, Missing) else split.get("deferred", 0.0)


def _stalled(
    seen: Observation, role: Role, found: Sequence[tuple[WorkerSample, Watched]], limit_s: float
) -> tuple[str, ...]:
    """The leaders of groups of which every engine that holds work stands still."""
    holders = [(worker, now) for worker, now in found if now.running + now.waiting > 0]
    moves = {worker.group for worker, now in holders if now.at_s - now.moved_s < limit_s}
    stands = [(worker, now) for worker, now in holders if worker.group not in moves]
    kept_waiting = role is Role.PREFILL and not moves
    groups = sorted({worker.group for worker, now in stands if now.running > 0 or not kept_waiting})
    fleet = seen.fleet[role]
    leaders = {group.key: group.pods[0] for group in fleet.groups} if isinstance(fleet, RoleFleet) else {}
    leaders |= {worker.group: worker.pod for worker, _ in stands if worker.leader}
    return tuple(leaders.get(group, group) for group in groups)


def _given(value: Number) -> float | None:
    return None if isinstance(value, Missing) else value


def _times(times: Histogram | Missing) -> tuple[float, float] | None:
    return None if isinstance(times, Missing) else (times.counts[-1], times.sum_s)
