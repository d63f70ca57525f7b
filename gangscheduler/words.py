"""What a cycle has found out, as verdicts on groups and words on pods that wait.

Rule: pure; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping

from gangscheduler.cycle import FITS, Outcome
from gangscheduler.gangs import Gang
from gangscheduler.model import EXPLAINED, Pod, Reason, Verdict, Waiting
from gangscheduler.part import Part
from gangscheduler.why import Cause


def verdict_of(gang: Gang, part: Part, out: Outcome) -> Verdict:
    """One group. A group that the cycle did not look at stands as its part does."""
    group = gang.group
    admitted = out.admitted.get(group.key, part.done)
    desired = len(part.children) if part.children else group.fulfilled + gang.desired
    idle = Cause(Reason.MINIMUM_NOT_MET) if admitted < desired or admitted < part.minimum else FITS
    cause = out.causes.get(group.key) or (idle if gang.idle is None else Cause(gang.idle))
    return Verdict(
        name=group.key,
        service=gang.service,
        role=gang.role,
        desired=desired,
        admitted=admitted,
        placeable_now=out.placeable.get(group.key, admitted),
        limiting_resource=cause.resource,
        reason=cause.reason,
        floor=part.minimum if group.composite else gang.floor,
        uid=group.uid,
        limiting_level=cause.level,
        detail=cause.detail,
    )


def waiting_of(pod: Pod, groups: Mapping[str, Waiting], out: Outcome) -> Waiting:
    """Why a pod stays pending; `groups` says it of the pods of every group."""
    if pod.unsupported:
        reason = Reason.UNSUPPORTED_CONSTRAINT
        return Waiting(pod.key, pod.uid, reason, f"{EXPLAINED[reason]}: {pod.unsupported}")
    said = groups.get(pod.group)
    if said is not None:
        return Waiting(pod.key, pod.uid, said.reason, said.message)
    if pod.group:
        return Waiting(pod.key, pod.uid, Reason.POD_GROUP_MISSING, EXPLAINED[Reason.POD_GROUP_MISSING])
    cause = out.alone.get(pod.key, Cause(Reason.BINDING_REFUSED))
    limit = f" ({cause.resource})" if cause.resource else ""
    return Waiting(pod.key, pod.uid, cause.reason, f"{EXPLAINED[cause.reason]}{limit}")
