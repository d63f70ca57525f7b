"""Half-bound TP groups and gangs: those that hold places and cannot run.

Rules:
1. Pure: a snapshot and its verdicts in, pods out. How long it may last is the loop's business.
2. Something waits that this cycle did not place, and something sits on nodes for it: repair was tried first.
3. All or nothing: where a single bound pod has started, or nobody would make it again, all of them stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from gangscheduler.gangs import Gang, TpGroup, gangs_of
from gangscheduler.model import Pod, Snapshot, Verdicts


def stuck(snapshot: Snapshot, verdicts: Verdicts) -> dict[str, tuple[Pod, ...]]:
    """The bound pods of every half-bound TP group and gang, by a name for people. Linear, plus the sorting."""
    if not verdicts.waiting or not any(pod.undoable for pod in snapshot.pods):
        return {}
    placed = {binding.uid for binding in verdicts.bindings}
    found: dict[str, tuple[Pod, ...]] = {}
    for gang in gangs_of(snapshot):
        bound = tuple(pod for tp_group in gang.tp_groups for pod in tp_group.bound)
        if _is_short(gang, placed) and _may_go(bound):
            found[f"gang {gang.group.key}"] = bound
            continue
        for tp_group in gang.tp_groups:
            if not tp_group.running and _waits(tp_group, placed) and _may_go(tp_group.bound):
                found[f"TP group {tp_group.key} of {gang.group.key}"] = tp_group.bound
    return found


def _is_short(gang: Gang, placed: set[str]) -> bool:
    """Whether the minimum is not met, this cycle's bindings included, though pods wait for it."""
    coming = sum(1 for one in gang.tp_groups for pod in one.pending if pod.uid in placed)
    return gang.missing_pods > coming and any(_waits(tp_group, placed) for tp_group in gang.tp_groups)


def _waits(tp_group: TpGroup, placed: set[str]) -> bool:
    return any(pod.uid not in placed for pod in tp_group.pending)


def _may_go(bound: Iterable[Pod]) -> bool:
    pods = tuple(bound)
    return bool(pods) and all(pod.ours and pod.undoable for pod in pods)
