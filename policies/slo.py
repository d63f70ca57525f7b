"""The SLO floor: no shrink below what the SLO needs for the demand of now.

Rule: a floor holds a shrink up and drives no growth: an SLO that no size can meet must not scale anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from policies.model import ROLES, Code, Missing, Pair, Reason, Role, Stage, Verdict


def keep_slo(proposal: Pair, current: Pair, needed: Mapping[Role, int | Missing]) -> Verdict:
    """Stop each shrink at `needed`: the groups that meet the SLO for the median demand; unknown stops nothing."""
    target, why = proposal, []
    for role in ROLES:
        floor = needed[role]
        if isinstance(floor, Missing) or proposal[role] >= min(floor, current[role]):
            continue
        groups = min(floor, current[role])
        detail = {"wanted": proposal[role], "kept": groups, "needed": floor}
        why.append(Reason(Stage.DECIDE, Code.SLO_FLOOR, role, detail))
        target = target.with_role(role, groups)
    return target, tuple(why)
