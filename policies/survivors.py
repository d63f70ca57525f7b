"""Scale-down by what the survivors would see: the work that arrives, spread over fewer groups.

Rules:
1. The load is what arrives, never a queue that happens to be empty now: N groups at a load each of L leave N - 1 groups
   at L x N / (N - 1).
2. A role shrinks no further than to where a survivor's load stays within `margin` of the most that the SLO allows.
3. A load that is not known lets no group go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.model import ROLES, Code, Detail, Missing, Pair, Reason, Role, Stage, Verdict


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives at one role, and the most of it that one group can take within the SLO, in the same unit."""

    offered: float | Missing
    per_group_most: float


def keep_survivors(proposal: Pair, current: Pair, loads: Mapping[Role, Load], margin: float = 0.9) -> Verdict:
    """Stop each shrink where the survivors would be full. `margin`: the share of a group that they may fill, 0 to 1."""
    target, why = proposal, []
    for role in ROLES:
        if proposal[role] >= current[role]:
            continue
        load = loads[role]
        if isinstance(load.offered, Missing):
            detail: Detail = {"wanted": proposal[role], "kept": current[role], "why": load.offered.missing}
            groups = current[role]
        else:
            groups = max(proposal[role], _fewest(load.offered, load.per_group_most * margin, current[role]))
            detail = {
                "wanted": proposal[role],
                "kept": groups,
                "survivor_load": load.offered / max(1, groups - 1),
                "most": load.per_group_most * margin,
            }
        if groups != proposal[role]:
            why.append(Reason(Stage.DECIDE, Code.SURVIVORS_FULL, role, detail))
            target = target.with_role(role, groups)
    return target, tuple(why)


def _fewest(offered: float, most: float, now: int) -> int:
    """The fewest of the present groups that take what is offered; where none can take anything, keeping is no help."""
    if most <= 0:
        return 0
    return now if offered >= most * now else math.ceil(offered / most - 1e-9)
