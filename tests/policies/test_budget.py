"""The budget: exact against brute force for every pair up to 64 x 64, unique, and never exceeded on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.budget import affordable, cost_gpus, fit_budget, keep_budget
from policies.model import ROLES, Code, Missing, Pair, Role

SIDE = 64
COUNTS = np.arange(SIDE + 1)
PREFILL, DECODE = np.meshgrid(COUNTS, COUNTS, indexing="ij")
"""Every pair up to 64 x 64."""


def brute_force(proposal: Pair, costs: Pair, budget: int) -> tuple[Pair, int]:
    """The best of all pairs up to the proposal, and how many pairs are as good; one whole number orders them."""
    fits = PREFILL * costs.prefill + DECODE * costs.decode <= budget
    fits &= (proposal.prefill >= PREFILL) & (proposal.decode >= DECODE)
    shares = [PREFILL * max(1, proposal.decode)] * (proposal.prefill > 0)
    shares += [DECODE * max(1, proposal.prefill)] * (proposal.decode > 0)
    order = (np.minimum.reduce(shares) * 10_000 + np.add.reduce(shares)) * 100 + PREFILL
    order = np.where(fits, order, -1)
    best = order.argmax()
    return Pair(int(best) // (SIDE + 1), int(best) % (SIDE + 1)), int((order == order.flat[best]).sum())


@pytest.mark.parametrize(("costs", "budget"), [(Pair(1, 1), 40), (Pair(4, 2), 97), (Pair(2, 8), 200)])
def test_every_pair_up_to_64_by_64(costs: Pair, budget: int) -> None:
    for prefill in range(0, SIDE + 1):
        for decode in range(0, SIDE + 1):
            proposal = Pair(prefill, decode)
            if cost_gpus(proposal, costs) <= budget:
                assert fit_budget(proposal, Pair(0, 0), costs, budget) == (proposal, ())
                continue
            best, as_good = brute_force(proposal, costs, budget)
            assert as_good == 1
            assert fit_budget(proposal, Pair(0, 0), costs, budget)[0] == best


@given(
    proposal=st.builds(Pair, st.integers(1, SIDE), st.integers(1, SIDE)),
    costs=st.builds(Pair, st.integers(0, 16), st.integers(0, 16)),
    budget=st.integers(1, 600),
)
def test_any_costs_and_budget(proposal: Pair, costs: Pair, budget: int) -> None:
    target, _ = fit_budget(proposal, Pair(0, 0), costs, budget)
    best, as_good = brute_force(proposal, costs, budget)
    assert (target, as_good) == (best, 1)


def test_a_budget_below_the_minimums_is_named_and_grows_nothing() -> None:
    target, why = fit_budget(Pair(4, 4), Pair(2, 2), Pair(4, 4), 8)
    assert target == Pair(2, 2)
    assert [reason.code for reason in why] == [Code.BUDGET_BELOW_MINIMUM, Code.BUDGET_CAPPED, Code.BUDGET_CAPPED]


def test_an_unknown_cost_lets_nothing_grow_and_everything_shrink() -> None:
    costs = {Role.PREFILL: 4, Role.DECODE: Missing("resourceClaims only")}
    target, why = keep_budget(Pair(6, 1), Pair(2, 2), Pair(1, 1), costs, 16)
    assert target == Pair(2, 1)
    assert [(r.code, r.role, r.detail["of"]) for r in why] == [(Code.COST_UNKNOWN, Role.PREFILL, "decode")]


def test_an_explicit_cost_of_nothing_costs_nothing() -> None:
    costs = {Role.PREFILL: 4, Role.DECODE: 0}
    assert keep_budget(Pair(6, 50), Pair(2, 2), Pair(1, 1), costs, 16)[0] == Pair(4, 50)
    assert affordable(Role.DECODE, Pair(4, 50), costs, 16) is None
    assert affordable(Role.PREFILL, Pair(3, 50), costs, 16) == 1


def test_an_unknown_cost_affords_nothing_of_either_role() -> None:
    costs = {Role.PREFILL: Missing("?"), Role.DECODE: 2}
    assert all(isinstance(affordable(role, Pair(0, 0), costs, 100), Missing) for role in ROLES)


@given(
    current=st.builds(Pair, st.integers(1, 12), st.integers(1, 12)),
    wanted=st.builds(Pair, st.integers(1, 24), st.integers(1, 24)),
    gpus=st.builds(Pair, st.integers(1, 8), st.integers(1, 8)),
    drains=st.lists(st.sampled_from(ROLES), max_size=60),
)
def test_no_step_exceeds_the_budget_whatever_drains_when(
    current: Pair, wanted: Pair, gpus: Pair, drains: list[Role]
) -> None:
    """Shrinks are asked for at once and drain in any order; growth takes what is affordable then."""
    budget = max(cost_gpus(current, gpus), sum(gpus[role] for role in ROLES))
    costs = {role: gpus[role] for role in ROLES}
    target, _ = fit_budget(wanted, Pair(1, 1), gpus, budget)
    held = current
    for gone in [*drains, *(role for role in ROLES for _ in range(24))]:
        if held[gone] > target[gone]:
            held = held.with_role(gone, held[gone] - 1)
        for role in ROLES:
            more = affordable(role, held, costs, budget)
            assert isinstance(more, int)
            if target[role] > held[role]:
                held = held.with_role(role, min(target[role], held[role] + more))
            assert cost_gpus(held, gpus) <= budget
            assert held[role] <= max(current[role], target[role])
    assert held == target
