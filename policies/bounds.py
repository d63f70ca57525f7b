"""Minimum and maximum groups per role: corrected at once, whatever else is decided."""

from __future__ import annotations

from policies.model import ROLES, Code, Pair, Reason, Stage, Verdict


def bound(proposal: Pair, minimum: Pair, maximum: Pair) -> Verdict:
    """Clamp each role into [minimum, maximum]."""
    target, why = proposal, []
    for role in ROLES:
        groups = min(max(proposal[role], minimum[role]), maximum[role])
        if groups != proposal[role]:
            detail = {"wanted": proposal[role], "min": minimum[role], "max": maximum[role]}
            why.append(Reason(Stage.DECIDE, Code.BOUNDED, role, detail))
            target = target.with_role(role, groups)
    return target, tuple(why)
