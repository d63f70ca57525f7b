"""The GPU budget: an exact integer projection, and what is still affordable beside all that exists.

Rules:
1. The result never costs more than the budget, unless the minimums alone do: then nothing grows beyond them.
2. No role gets more than was proposed: a shrink never grows a role.
3. Among the pairs that fit, the one that serves the worse-off role best: the largest smallest share of what was
   proposed, then the largest sum of both shares, then more prefill. Shares are whole numbers over their common
   denominator, compared exactly. Two pairs that are equal in both have the same two shares, at most with the roles
   swapped, which the last comparison tells apart: the result is unique.
4. An unknown cost is neither 0 nor the whole budget: nothing grows, everything may shrink.
5. Whatever exists costs, also while it drains: a receiver grows only into what its donor has given back.
"""

from __future__ import annotations

from collections.abc import Mapping

from policies.model import ROLES, Code, Detail, Missing, Pair, Reason, Role, Stage, Verdict

Costs = Mapping[Role, int | Missing]
"""GPUs of one group, all of its pods counted, per role."""


def keep_budget(proposal: Pair, current: Pair, minimum: Pair, costs: Costs, budget_gpus: int) -> Verdict:
    """Project the pair into the budget; with an unknown cost, let no role grow. Linear in the groups of prefill."""
    unknown = {role: gpus.missing for role in ROLES if isinstance(gpus := costs[role], Missing)}
    known = [gpus for role in ROLES if not isinstance(gpus := costs[role], Missing)]
    if not unknown:
        return fit_budget(proposal, minimum, Pair(*known), budget_gpus)
    target, why = proposal, []
    for role in ROLES:
        if proposal[role] > current[role]:
            named = role if role in unknown else role.partner
            detail: Detail = {"wanted": proposal[role], "kept": current[role], "of": named.value, "why": unknown[named]}
            why.append(Reason(Stage.DECIDE, Code.COST_UNKNOWN, role, detail))
            target = target.with_role(role, current[role])
    return target, tuple(why)


def fit_budget(proposal: Pair, minimum: Pair, gpus_per_group: Pair, budget_gpus: int) -> Verdict:
    """Project the pair into the budget. Linear in the groups of prefill.

    Costs per group may differ between the roles and may be 0 where a workload asks for none.
    """
    if cost_gpus(proposal, gpus_per_group) <= budget_gpus:
        return proposal, ()
    floor = Pair(*(min(minimum[role], proposal[role]) for role in ROLES))
    best = max(_candidates(proposal, floor, gpus_per_group, budget_gpus), key=lambda pair: _merit(pair, proposal))
    why = []
    if cost_gpus(best, gpus_per_group) > budget_gpus:
        detail: Detail = {"minimum_gpus": cost_gpus(floor, gpus_per_group), "budget_gpus": budget_gpus}
        why.append(Reason(Stage.DECIDE, Code.BUDGET_BELOW_MINIMUM, None, detail))
    for role in ROLES:
        if best[role] != proposal[role]:
            detail = {
                "wanted": proposal[role],
                "gets": best[role],
                "budget_gpus": budget_gpus,
                "wanted_gpus": cost_gpus(proposal, gpus_per_group),
            }
            why.append(Reason(Stage.DECIDE, Code.BUDGET_CAPPED, role, detail))
    return best, tuple(why)


def affordable(role: Role, held: Pair, costs: Costs, budget_gpus: int) -> int | Missing | None:
    """How many more groups of a role the budget pays for beside all that is held: every group that was asked for, or
    exists and drains. None where they cost nothing; Missing where a cost is not known: then none may be added.
    """
    used = 0
    for other in ROLES:
        gpus = costs[other]
        if isinstance(gpus, Missing):
            return gpus
        used += held[other] * gpus
    own = costs[role]
    if isinstance(own, Missing) or own == 0:
        return None
    return max(0, budget_gpus - used) // own


def cost_gpus(pair: Pair, gpus_per_group: Pair) -> int:
    """What a pair costs."""
    return sum(pair[role] * gpus_per_group[role] for role in ROLES)


def _candidates(proposal: Pair, floor: Pair, gpus_per_group: Pair, budget_gpus: int) -> list[Pair]:
    """For each prefill count the largest decode count that still fits; the floor if nothing does."""
    pairs = [floor]
    for prefill in range(floor.prefill, proposal.prefill + 1):
        left = budget_gpus - prefill * gpus_per_group.prefill
        decode = proposal.decode if gpus_per_group.decode == 0 else left // gpus_per_group.decode
        decode = min(decode, proposal.decode)
        if left >= 0 and decode >= floor.decode:
            pairs.append(Pair(prefill, decode))
    return pairs


def _merit(pair: Pair, proposal: Pair) -> tuple[int, int, int]:
    """Both roles' shares of what was proposed, over the common denominator."""
    shares = [pair[role] * max(1, proposal[role.partner]) for role in ROLES if proposal[role]]
    return min(shares), sum(shares), pair.prefill
