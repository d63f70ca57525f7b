"""Scale-down by what the survivors would see: the work that arrives, spread over fewer groups.

Rules:
1. The load is what arrives, never a queue that happens to be empty now: N groups at a load each of L leave N - 1 groups
   at L x N / (N - 1).
2. A role shrinks no further than to where a survivor's load stays within `margin` of the most that the SLO allows.
3. A load that is not known lets no group go.
4. Groups that take none of the load are no survivors: they come on top.
5. What was sized for at least this load, with its own allowance for chance, is enough: the margin is for a load that is
   expected to fall. Else a role would be held for ever above what it may just as well grow to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.model import ROLES, Code, Detail, Missing, Pair, Reason, Role, Stage, Verdict


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives at one role, and the most of it that one group can take within the SLO, in the same unit.

    `idle`: present groups that take none of it. `enough`: groups that are known to take it all within the SLO, if any.
    """

    offered: float | Missing
    per_group_most: float
    idle: int = 0
    enough: int | None = None


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
            fewest = _fewest(load.offered, load.per_group_most * margin, current[role])
            fewest = fewest if load.enough is None else min(fewest, load.enough)
            groups = max(proposal[role], min(current[role], fewest + load.idle))
            detail = {
                "wanted": proposal[role],
                "kept": groups,
                "survivor_load": load.offered / max(1, groups - load.idle - 1),
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
