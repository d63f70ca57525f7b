"""Groups that hold work and make no progress: they are no supply.

Rules:
1. As many groups as are stalled come on top of what the work needs, up to the maximum: else nobody does their share.
2. Where there is no work, or more than half of the groups are stalled, nothing comes on top: what ails them all would
   stall the new ones, too. They are named, and neither drive growth nor stop a shrink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.model import ROLES, Code, Detail, Pair, Reason, Role, Stage, Verdict


def no_supply(stalled: int, needed: int, ready: int) -> int:
    """How many groups come on top of those `needed` by the work. A single one may always be replaced."""
    return stalled if needed > 0 and stalled <= max(1, ready // 2) else 0


def add_stalled(proposal: Pair, stalled: Mapping[Role, Sequence[str]], on_top: Pair, maximum: Pair) -> Verdict:
    """Add `on_top` to what each role needs; a reason wherever groups are `stalled`, named by their leaders."""
    target, why = proposal, []
    for role in ROLES:
        names = stalled.get(role, ())
        groups = max(proposal[role], min(proposal[role] + on_top[role], maximum[role]))
        if names:
            detail: Detail = {
                "wanted": proposal[role],
                "groups": groups,
                "stalled": len(names),
                "named": ", ".join(names[:5]),
            }
            why.append(Reason(Stage.DECIDE, Code.STALLED_NO_SUPPLY, role, detail))
            target = target.with_role(role, groups)
    return target, tuple(why)
