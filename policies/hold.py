"""Reasons not to move a role: blindness, unknown cost, a pause, a person's own number.

Rule: a hold concerns one role and one direction; the partner goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policies.model import ROLES, Code, Detail, Pair, Reason, Role, Stage, Verdict


@dataclass(frozen=True, slots=True)
class Hold:
    """One role must not grow, not shrink, or stay at `pinned` groups."""

    code: Code
    no_growth: bool
    no_shrink: bool
    detail: Detail
    pinned: int | None = None


def apply_holds(proposal: Pair, current: Pair, holds: Mapping[Role, tuple[Hold, ...]]) -> Verdict:
    """Keep each role where its holds demand; a reason only where one changed something or pins a number."""
    target, why = proposal, []
    for role in ROLES:
        for hold in holds.get(role, ()):
            groups = _held(target[role], current[role], hold)
            if groups != target[role] or hold.pinned is not None:
                detail = {"wanted": proposal[role], "kept": groups, **hold.detail}
                why.append(Reason(Stage.DECIDE, hold.code, role, detail))
            target = target.with_role(role, groups)
    return target, tuple(why)


def _held(wanted: int, current: int, hold: Hold) -> int:
    if hold.pinned is not None:
        return hold.pinned
    if (hold.no_growth and wanted > current) or (hold.no_shrink and wanted < current):
        return current
    return wanted
