"""The ratio band: always reached or named, by the cheapest pair, never by a cut."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model import ROLES, Code, Missing, Pair, Role
from policies.ratio import OPEN, Band, Span, band_of_work, keep_ratio, name_ratio, narrowed

BIG = Pair(100, 100)
pairs = st.builds(Pair, st.integers(0, 12), st.integers(0, 12))


@pytest.mark.parametrize(
    ("proposal", "low", "high", "expected"),
    [
        pytest.param(Pair(1, 1), 0.66, 0.67, Pair(2, 3), id="both grow to hit a narrow band"),
        pytest.param(Pair(3, 3), 0.66, 0.67, Pair(4, 6), id="not by cutting"),
        pytest.param(Pair(2, 1), 0.5, 0.5, Pair(2, 4), id="a single ratio"),
        pytest.param(Pair(0, 0), 0.5, 0.5, Pair(0, 0), id="nothing is in every band"),
        pytest.param(Pair(1, 0), 0.0, 4.0, Pair(1, 1), id="a role alone"),
    ],
)
def test_narrow_bands_are_hit(proposal: Pair, low: float, high: float, expected: Pair) -> None:
    target, why = keep_ratio(proposal, low, high, BIG)
    assert target == expected
    assert {reason.role for reason in why} == {role for role in ROLES if expected[role] != proposal[role]}
    assert name_ratio(target, low, high) == ()


def test_the_cheapest_pair_depends_on_what_a_group_costs() -> None:
    assert keep_ratio(Pair(1, 3), 0.5, 1.0, BIG, Pair(8, 1))[0] == Pair(2, 3)
    assert keep_ratio(Pair(3, 2), 1.1, 1.4, BIG, Pair(1, 1))[0] == Pair(4, 3)


@pytest.mark.parametrize(
    ("proposal", "maximum", "expected"),
    [
        pytest.param(Pair(1, 1), Pair(1, 2), Pair(1, 2), id="nearer, though not inside"),
        pytest.param(Pair(9, 2), Pair(9, 3), Pair(9, 3), id="as far as the maximum"),
        pytest.param(Pair(5, 1), Pair(4, 1), Pair(5, 1), id="beyond its own maximum already"),
    ],
)
def test_a_band_out_of_reach_is_named(proposal: Pair, maximum: Pair, expected: Pair) -> None:
    target, why = keep_ratio(proposal, 0.66, 0.67, maximum)
    assert target == expected
    assert why[-1].code is Code.RATIO_UNREACHABLE


@given(proposal=pairs, low=st.floats(0, 3), width=st.floats(0, 2), maximum=pairs)
def test_reached_or_named_and_never_cut(proposal: Pair, low: float, width: float, maximum: Pair) -> None:
    band = Band(low, low + width)
    target, why = keep_ratio(proposal, band.low, band.high, maximum)
    room = {role: range(proposal[role], max(proposal[role], maximum[role]) + 1) for role in ROLES}
    assert all(target[role] in room[role] for role in ROLES)
    inside = [Pair(p, d) for p in room[Role.PREFILL] for d in room[Role.DECODE] if band.holds(Pair(p, d))]
    if inside:
        assert band.holds(target)
        assert sum(target[role] for role in ROLES) == min(pair.prefill + pair.decode for pair in inside)
    else:
        assert [reason.code for reason in why][-1] is Code.RATIO_UNREACHABLE
        assert band.distance(target) <= band.distance(proposal)
        assert bool(name_ratio(target, band.low, band.high))


def test_a_band_from_the_work_holds_every_pair_that_the_work_may_need() -> None:
    band = band_of_work(Span(1.2, 3.4), Span(0.5, 5.1))
    assert band == Band(2 / 6, 4 / 1)
    assert all(band.holds(Pair(p, d)) for p in (2, 3, 4) for d in (1, 6))


@pytest.mark.parametrize(
    ("prefill", "decode"),
    [(Missing("?"), Span(1, 2)), (Span(1, 2), Missing("?")), (Span(0, 2), Span(1, 2)), (Span(1, 2), Span(0, 0))],
)
def test_no_band_from_work_that_is_not_known_or_may_be_none(prefill: Span | Missing, decode: Span | Missing) -> None:
    assert band_of_work(prefill, decode) == OPEN


def test_a_person_s_band_outranks_the_work_s() -> None:
    assert narrowed(OPEN, Band(0.5, 2)) == Band(0.5, 2)
    assert narrowed(Band(1, 4), Band(0.5, 2)) == Band(1, 2)
    assert narrowed(Band(3, 4), Band(0.5, 2)) == Band(3, 4)


def test_distance_is_the_same_in_both_directions() -> None:
    band = Band(0.5, 2)
    assert band.distance(Pair(8, 2)) == pytest.approx(band.distance(Pair(2, 8))) == pytest.approx(math.log(2))
    assert band.distance(Pair(1, 0)) == math.inf
