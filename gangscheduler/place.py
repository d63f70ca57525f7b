"""One scheduling decision: `place` a snapshot's pods, or ask `how_many_fit`.

Rules:
1. Both are a Core that is used once; who decides again and again keeps one, and pays only for what has changed.
2. What is decided, and in which order, is cycle.py's; the same solver answers both questions.
"""

from __future__ import annotations

from collections.abc import Iterable

from gangscheduler.core import Core
from gangscheduler.model import Fit, Snapshot, Template, Verdicts


def place(snapshot: Snapshot) -> Verdicts:
    """Decide what is bound now, and say why the rest waits. Raises nothing: what cannot be understood waits."""
    return Core().decide(snapshot)


def how_many_fit(
    snapshot: Snapshot,
    template: Template,
    limit: int,
    *,
    podgroup: str = "",
    reserve: Iterable[Template] = (),
) -> Fit:
    """How many more whole TP groups of this shape would fit now, up to `limit`: see Core.how_many_fit."""
    return Core().how_many_fit(snapshot, template, limit, podgroup=podgroup, reserve=reserve)
