"""Bottleneck: which stage is narrowest, prefill, KV transfer or decode, and where more groups help.

Rules:
1. A stage's load is what arrives over what its ready groups can do. The narrowest stage has the highest.
2. A queue shows more than a load, and the last stage with a queue is the one: what stands before it waits for it. A
   prefill queue while decode has no room, or while the link is full, asks for no prefill groups.
3. Sequences that wait for remote KV ("deferred") wait for the transfer, not for decode.
4. Each prefill group sends over a link of its own: where the transfer is narrowest, prefill groups help. They do not
   where the transfer of a prompt alone takes longer than the TTFT target.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

from autoscaler.core.work import Work
from autoscaler.model import Number, Observation, Signals
from autoscaler.settings import Settings
from perfmodel.profile import Profile
from perfmodel.transfer import StageLoads, StageName, link_load, stage_loads
from policies.model import Code, Detail, Missing, Reason, Role, Stage

NEAR = 0.85
"""From this load on a stage is named."""
QUEUED_SHARE = 0.25
"""Of the TTFT target: a queue that takes longer than this to work off stands."""
STAGES: tuple[StageName, ...] = ("prefill", "transfer", "decode")


@dataclass(frozen=True, slots=True)
class Queues:
    """Requests by what they wait for: a prefill group (held by a router), its batch, their KV, room on decode."""

    unassigned: float = 0.0
    prefill: float = 0.0
    transfer: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True, slots=True)
class Narrowest:
    """The narrowest stage, the loads, and the seconds that the queue of each stage takes; and how that is told."""

    stage: StageName
    loads: StageLoads
    queued_s: dict[StageName, float]
    stands: bool
    why: tuple[Reason, ...]


def queues(seen: Observation, signals: Signals, stale_after_s: float) -> Queues:
    """What waits, and for what; what nobody tells counts as nothing."""
    stages = [router.in_flight for router in seen.samples.routers if seen.now_s - router.at_s <= stale_after_s]
    unassigned = sum(stage.get("unassigned", 0.0) for stage in stages if not isinstance(stage, Missing))
    deferred = _or_0(signals.decode.waiting_deferred)
    return Queues(
        unassigned=unassigned,
        prefill=max(0.0, _or_0(signals.prefill.waiting) - unassigned),
        transfer=deferred,
        decode=max(0.0, _or_0(signals.decode.waiting) - deferred),
    )


def narrowest(
    signals: Signals, waiting: Queues, work: Work, profile: Profile, settings: Settings, ready: dict[Role, int]
) -> Narrowest | None:
    """The bottleneck of what arrives now at the groups that are ready; None where that is not known."""
    rate = signals.demand.requests_per_s
    engines = {role: int(ready[role] * signals[role].engines_per_group) for role in ready}
    if isinstance(rate, Missing) or work.decode is None or not min(engines.values()):
        return None
    idle_ms, link = (
        profile.transfer_ms(work.prompts.mean),
        link_load(profile, work.prompts, rate, engines[Role.PREFILL]),
    )
    loads = stage_loads(work.prefill, link, work.decode, rate, (engines[Role.PREFILL], engines[Role.DECODE]))
    decoded = work.decode.requests_per_s * engines[Role.DECODE]
    # Some transfers are always under way: those that Little's law expects are no queue.
    moving = 2 * rate * idle_ms / 1e3 + 1
    queued_s: dict[StageName, float] = {
        "prefill": (waiting.unassigned + waiting.prefill) * work.prefill.mean_s / engines[Role.PREFILL],
        "transfer": max(0.0, waiting.transfer - moving) * idle_ms / 1e3 / engines[Role.PREFILL],
        "decode": waiting.decode / decoded if decoded else (inf if waiting.decode else 0.0),
    }
    limit_s = settings.spec.slo.ttft.target_ms / 1e3 * QUEUED_SHARE
    standing = [stage for stage in STAGES if queued_s[stage] > limit_s]
    stage = standing[-1] if standing else loads.narrowest
    why = _told(stage, loads, queued_s, bool(standing), (idle_ms, settings.spec.slo.ttft.target_ms))
    return Narrowest(stage, loads, queued_s, bool(standing), why)


def _told(
    stage: StageName, loads: StageLoads, queued_s: dict[StageName, float], stands: bool, times_ms: tuple[float, float]
) -> tuple[Reason, ...]:
    """`times_ms`: of an idle transfer, and the TTFT target."""
    load, (transfer_ms, target_ms) = getattr(loads, stage), times_ms
    if load < NEAR and not stands:
        return ()
    helps = "decode groups" if stage == "decode" else "prefill groups"
    if stage == "transfer" and transfer_ms >= target_ms:
        helps = "no group, but a faster network"
    numbers: Detail = {
        **{f"{name}_load": _finite(getattr(loads, name)) for name in STAGES},
        **{f"{name}_queue_s": _finite(queued_s[name]) for name in STAGES if queued_s[name]},
    }
    capacity = "over" if load > 1 else "near" if load >= NEAR else "queue"
    role = Role.DECODE if stage == "decode" else Role.PREFILL
    detail: Detail = {"stage": stage, "capacity": capacity, "helps": helps, **numbers}
    return (Reason(Stage.SIZE, Code.BOTTLENECK, role, detail),)


def _finite(value: float) -> float | str:
    return value if isfinite(value) else "without end"


def _or_0(value: Number) -> float:
    return 0.0 if isinstance(value, Missing) else value
