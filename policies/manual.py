"""A person outranks the controller: a number set by hand is kept, named and timed.

Rules:
1. Replicas that differ from what we last wrote, written by somebody else, begin a hold. The number that our
   write replaced counts as ours until somebody writes after us: a read may be stale, a patch may have failed.
2. A new manual number during a hold renews it.
3. A hold ends after `hold_s`, or when the resume annotation gets a value that was not there when it began.
4. After a restart we do not know what we wrote: a foreign change that is younger than `hold_s`, and not the
   object's creation, counts as manual.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Replicas written in our name that are not what we wrote: no other process should have that name.
ANOTHER = "another roleratio-controller"

# The creation's own write may carry a timestamp one second later than creationTimestamp: both are whole seconds.
CREATION_SLACK_S = 2.0


@dataclass(frozen=True, slots=True)
class Ours:
    """Our last number for a role, the one it replaced (a stale read or a failed patch still shows it), and when."""

    replicas: int
    before: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What the workload shows now, and what we remember of it."""

    now_s: float
    replicas: int
    ours: Ours | None
    foreign_manager: str | None
    written_at_s: float
    created_s: float
    resume: str


@dataclass(frozen=True, slots=True)
class Held:
    """A number that somebody else set by hand, and since when it is kept."""

    manager: str
    ours: int
    theirs: int
    since_s: float
    resume_seen: str


def manual_hold(seen: Seen, held: Held | None, hold_s: float) -> Held | None:
    """The hold in force after this look, or None."""
    if held is not None:
        if seen.replicas != held.theirs and seen.foreign_manager:
            return _begin(seen, held.ours)
        resumed = bool(seen.resume) and seen.resume != held.resume_seen
        over = seen.now_s - held.since_s >= hold_s
        return None if resumed or over or seen.replicas != held.theirs else held
    if seen.foreign_manager is None or hold_s <= 0:
        return None
    if seen.ours is None:
        fresh = seen.now_s - seen.written_at_s < hold_s
        edited = seen.written_at_s > seen.created_s + CREATION_SLACK_S
        return replace(_begin(seen, seen.replicas), since_s=seen.written_at_s) if fresh and edited else None
    ours = {seen.ours.replicas} if seen.written_at_s > seen.ours.at_s else {seen.ours.replicas, seen.ours.before}
    return None if seen.replicas in ours else _begin(seen, seen.ours.replicas)


def _begin(seen: Seen, ours: int) -> Held:
    return Held(seen.foreign_manager or "unknown", ours, seen.replicas, seen.now_s, seen.resume)
