"""What keeps a role from shrinking: what its survivors would see, and what the SLO needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model import ROLES, Code, Missing, Pair, Role
from policies.slo import keep_slo
from policies.survivors import Load, keep_survivors

small = st.integers(0, 20)
pairs = st.builds(Pair, small, small)


@pytest.mark.parametrize(
    ("offered", "proposal", "expected"),
    [
        pytest.param(2.6, 1, 3, id="2.6 need 3 groups at 0.9 each"),
        pytest.param(2.7, 1, 3, id="exactly full is allowed"),
        pytest.param(2.71, 1, 4, id="one too many for 3"),
        pytest.param(0.0, 1, 1, id="no work keeps nobody"),
        pytest.param(9.0, 1, 4, id="overloaded: never growth"),
        pytest.param(0.5, 3, 3, id="the proposal is more than enough"),
        pytest.param(Missing("no arrivals counted"), 1, 4, id="not known: nobody goes"),
    ],
)
def test_survivors(offered: float | Missing, proposal: int, expected: int) -> None:
    loads = {Role.PREFILL: Load(offered, 1.0), Role.DECODE: Load(0.0, 1.0)}
    target, why = keep_survivors(Pair(proposal, 1), Pair(4, 1), loads)
    assert target == Pair(expected, 1)
    assert [reason.code for reason in why] == ([Code.SURVIVORS_FULL] if expected != proposal else [])


@given(
    proposal=pairs,
    current=pairs,
    offered=st.floats(0, 40),
    most=st.just(0.0) | st.floats(0.01, 4),
    margin=st.floats(0.1, 1),
)
def test_survivors_are_never_fuller_than_allowed(
    proposal: Pair, current: Pair, offered: float, most: float, margin: float
) -> None:
    target, _ = keep_survivors(proposal, current, {role: Load(offered, most) for role in ROLES}, margin)
    for role in ROLES:
        assert min(proposal[role], current[role]) <= target[role] <= max(proposal[role], current[role])
        if target[role] < current[role] and most > 0:
            assert offered <= target[role] * most * margin * (1 + 1e-9) + 1e-8


@pytest.mark.parametrize(
    ("proposal", "needed", "expected"),
    [
        pytest.param(Pair(1, 5), {Role.PREFILL: 3, Role.DECODE: 3}, Pair(3, 5), id="a shrink stops"),
        pytest.param(Pair(1, 1), {Role.PREFILL: 9, Role.DECODE: Missing("?")}, Pair(4, 1), id="no growth, no guess"),
    ],
)
def test_slo_floor(proposal: Pair, needed: dict[Role, int | Missing], expected: Pair) -> None:
    target, why = keep_slo(proposal, Pair(4, 4), needed)
    assert target == expected
    assert {reason.code for reason in why} == {Code.SLO_FLOOR}
