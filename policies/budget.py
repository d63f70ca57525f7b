"""The GPU budget: an exact integer projection.

Rules:
1. The result never costs more than the budget, unless the minimums alone do: then nothing grows beyond them.
2. No role gets more than was proposed: a shrink never grows a role.
3. Among the pairs that fit, take the one that serves the worse-off role best (largest smallest share of what was
   proposed), then the one that uses most.
"""

from __future__ import annotations

from policies.model import ROLES, Code, Pair, Reason, Stage, Verdict


def fit_budget(proposal: Pair, minimum: Pair, gpus_per_group: Pair, budget_gpus: int) -> Verdict:
    """Project the pair into the budget. Linear in the groups of prefill.

    Costs per group may differ between the roles and may be 0 where a workload asks for none.
    """
    if _cost(proposal, gpus_per_group) <= budget_gpus:
        return proposal, ()
    floor = Pair(*(min(minimum[role], proposal[role]) for role in ROLES))
    best = max(_candidates(proposal, floor, gpus_per_group, budget_gpus), key=lambda pair: _merit(pair, proposal))
    why = []
    for role in ROLES:
        if best[role] != proposal[role]:
            detail = {
                "wanted": proposal[role],
                "gets": best[role],
                "budget_gpus": budget_gpus,
                "wanted_gpus": _cost(proposal, gpus_per_group),
            }
            why.append(Reason(Stage.DECIDE, Code.BUDGET_CAPPED, role, detail))
    return best, tuple(why)


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


def _merit(pair: Pair, proposal: Pair) -> tuple[float, float, int]:
    shares = [pair[role] / proposal[role] for role in ROLES if proposal[role]]
    return min(shares), sum(shares), pair.prefill


def _cost(pair: Pair, gpus_per_group: Pair) -> int:
    return sum(pair[role] * gpus_per_group[role] for role in ROLES)
