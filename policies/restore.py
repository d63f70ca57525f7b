"""A number that an apply dropped is put back: the API server's default is nobody's decision.

Rules:
1. Replicas that nobody owns, and that are not what we last wrote, were dropped, not set.
2. Putting our own last number back is not growth: no window and no blindness holds it up.
3. The RESTORES_MAX-th drop within WINDOW_S is left alone: we stop fighting and say who.
"""

from __future__ import annotations

from dataclasses import dataclass

RESTORES_MAX = 3
WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class Drops:
    """When the number was dropped of late, and whether it is gone right now."""

    at_s: tuple[float, ...] = ()
    dropped: bool = False

    @property
    def given_up(self) -> bool:
        """It is gone, and putting it back has not helped."""
        return self.dropped and len(self.at_s) >= RESTORES_MAX


def look_for_drop(before: Drops, now_s: float, *, unowned: bool, replicas: int, ours: int | None) -> Drops:
    """What is known of drops after this look; a drop counts once, however many looks it lasts."""
    recent = tuple(at_s for at_s in before.at_s if at_s > now_s - WINDOW_S)
    dropped = unowned and ours is not None and replicas != ours
    if dropped and not before.dropped:
        recent = (*recent, now_s)
    return Drops(recent, dropped)
