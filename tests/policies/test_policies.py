"""Policies: tables for what each does, properties for what none may ever do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bounds import bound
from policies.budget import fit_budget
from policies.fit import clamp_to_fit
from policies.hold import Hold, apply_holds
from policies.manual import Held, Ours, Seen, manual_hold
from policies.model import ROLES, Code, Missing, Pair, Role
from policies.ratio import keep_ratio
from policies.stabilise import stabilise
from policies.unread import keep_unread

small = st.integers(0, 12)
pairs = st.builds(Pair, small, small)
BIG = Pair(100, 100)


@pytest.mark.parametrize(
    ("proposal", "expected", "roles"),
    [
        (Pair(3, 3), Pair(3, 3), []),
        (Pair(0, 9), Pair(1, 8), [Role.PREFILL, Role.DECODE]),
        (Pair(20, 2), Pair(8, 2), [Role.PREFILL]),
    ],
)
def test_bounds(proposal: Pair, expected: Pair, roles: list[Role]) -> None:
    target, why = bound(proposal, Pair(1, 1), Pair(8, 8))
    assert target == expected
    assert [reason.role for reason in why] == roles
    assert all(reason.code is Code.BOUNDED for reason in why)


def history(*pairs: tuple[float, int, int]) -> list[tuple[float, Pair]]:
    return [(at_s, Pair(prefill, decode)) for at_s, prefill, decode in pairs]


@pytest.mark.parametrize(
    ("proposal", "past", "seen_s", "expected"),
    [
        pytest.param(Pair(5, 1), [], 100, Pair(5, 1), id="up at once, down when the window is seen"),
        pytest.param(Pair(1, 3), history((90, 4, 3)), 100, Pair(3, 3), id="down never above current"),
        pytest.param(Pair(1, 3), history((90, 2, 3)), 100, Pair(2, 3), id="down to the window's largest"),
        pytest.param(Pair(1, 3), history((70, 3, 3)), 100, Pair(1, 3), id="older than the window"),
        pytest.param(Pair(1, 1), [], 5, Pair(3, 3), id="after a restart sizes are held"),
    ],
)
def test_stabilise(proposal: Pair, past: list[tuple[float, Pair]], seen_s: float, expected: Pair) -> None:
    target, _ = stabilise(proposal, Pair(3, 3), past, 100.0, up_s=(0, 0), down_s=(20, 20), seen_s=seen_s)
    assert target == expected


def test_up_window_takes_the_smallest_proposal() -> None:
    past = history((95, 4, 3), (90, 2, 3))
    target, why = stabilise(Pair(6, 3), Pair(3, 3), past, 100.0, up_s=(8, 8), down_s=(20, 20), seen_s=99)
    assert target == Pair(4, 3)
    assert why[0].code is Code.STABILISED


@given(
    raw=pairs,
    current=pairs,
    past=st.lists(st.tuples(st.floats(0, 100), pairs), max_size=8),
    up_s=st.floats(0, 100),
    down_s=st.floats(0, 100),
    seen_s=st.floats(0, 200),
)
def test_stabilising_never_changes_direction(
    raw: Pair, current: Pair, past: list[tuple[float, Pair]], up_s: float, down_s: float, seen_s: float
) -> None:
    target, _ = stabilise(raw, current, past, 100.0, up_s=(up_s, up_s), down_s=(down_s, down_s), seen_s=seen_s)
    for role in ROLES:
        low, high = sorted((raw[role], current[role]))
        assert low <= target[role] <= high


@pytest.mark.parametrize(
    ("proposal", "expected"),
    [(Pair(2, 2), Pair(2, 2)), (Pair(1, 8), Pair(4, 8)), (Pair(9, 2), Pair(9, 5)), (Pair(1, 0), Pair(1, 1))],
)
def test_ratio_band_raises_the_short_role(proposal: Pair, expected: Pair) -> None:
    target, why = keep_ratio(proposal, 0.5, 2.0, BIG)
    assert target == expected
    assert bool(why) == (target != proposal)


def test_budget_does_not_turn_ten_and_one_around() -> None:
    target, _ = fit_budget(Pair(10, 1), Pair(1, 1), Pair(2, 2), 12)
    assert target == Pair(5, 1)


def test_a_hold_stops_one_direction_of_one_role() -> None:
    blind = Hold(Code.ROLE_BLIND, no_growth=False, no_shrink=True, detail={"why": "x"})
    target, why = apply_holds(Pair(1, 5), Pair(3, 3), {Role.PREFILL: (blind,)})
    assert target == Pair(3, 5)
    assert [(reason.role, reason.code) for reason in why] == [(Role.PREFILL, Code.ROLE_BLIND)]


def test_a_pinned_role_is_named_even_when_it_changes_nothing() -> None:
    pinned = Hold(Code.MANUAL_HOLD, True, True, {"writer": "kubectl"}, pinned=3)
    target, why = apply_holds(Pair(3, 3), Pair(3, 3), {Role.DECODE: (pinned,)})
    assert target == Pair(3, 3)
    assert why[0].detail["writer"] == "kubectl"


@pytest.mark.parametrize(
    ("fit", "expected", "codes"),
    [
        (5, 4, []),
        (1, 3, [Code.DOES_NOT_FIT]),
        (0, 2, [Code.DOES_NOT_FIT]),
        (Missing("no nodes"), 4, [Code.FIT_UNKNOWN]),
    ],
)
def test_growth_is_clamped_to_what_fits(fit: int | Missing, expected: int, codes: list[Code]) -> None:
    groups, why = clamp_to_fit(Role.PREFILL, 2, 4, fit, "nvidia.com/gpu")
    assert groups == expected
    assert [reason.code for reason in why] == codes


def test_a_shrink_needs_no_room() -> None:
    assert clamp_to_fit(Role.PREFILL, 4, 2, 0, "") == (2, ())


@pytest.mark.parametrize(
    ("proposal", "current", "expected"),
    [
        pytest.param(Pair(2, 1), Pair(2, 8), Pair(2, 4), id="kept beside what is needed"),
        pytest.param(Pair(2, 7), Pair(2, 8), Pair(2, 8), id="never above what is there"),
        pytest.param(Pair(3, 9), Pair(2, 8), Pair(3, 9), id="no help on the way up"),
        pytest.param(Pair(1, 8), Pair(4, 8), Pair(1, 8), id="the partner's are no reason"),
    ],
)
def test_unread_groups_are_full_on_the_way_down(proposal: Pair, current: Pair, expected: Pair) -> None:
    target, why = keep_unread(proposal, current, {Role.DECODE: ("decode-5", "decode-6", "decode-7")})
    assert target == expected
    assert [(r.code, r.detail["named"]) for r in why] == (
        [(Code.UNREAD_IS_FULL, "decode-5, decode-6, decode-7")] if target != proposal else []
    )


def seen(**changes: object) -> Seen:
    base = {
        "now_s": 1000.0,
        "replicas": 5,
        "ours": Ours(3, 2, 900.0),
        "foreign_manager": "kubectl",
        "written_at_s": 990.0,
        "created_s": 0.0,
        "resume": "",
    }
    return Seen(**(base | changes))  # type: ignore[arg-type]


HELD = Held("kubectl", 3, 5, 990.0, "")


@pytest.mark.parametrize(
    ("look", "held", "expected"),
    [
        pytest.param(seen(), None, Held("kubectl", 3, 5, 1000.0, ""), id="a foreign number begins a hold"),
        pytest.param(seen(replicas=3), None, None, id="our number is no change"),
        pytest.param(seen(foreign_manager=None), None, None, id="our own write"),
        pytest.param(seen(replicas=2, written_at_s=500.0), None, None, id="a stale read of the number before ours"),
        pytest.param(seen(replicas=2), None, Held("kubectl", 3, 2, 1000.0, ""), id="put back by hand after us"),
        pytest.param(seen(), HELD, HELD, id="kept"),
        pytest.param(seen(now_s=990 + 1800), HELD, None, id="over after the time"),
        pytest.param(seen(resume="now"), HELD, None, id="resumed"),
        pytest.param(seen(resume="a"), Held("kubectl", 3, 5, 990.0, "a"), Held("kubectl", 3, 5, 990.0, "a"), id="old"),
        pytest.param(seen(replicas=7), HELD, Held("kubectl", 3, 7, 1000.0, ""), id="a new number renews"),
        pytest.param(seen(ours=None), None, Held("kubectl", 5, 5, 990.0, ""), id="after a restart, a young change"),
        pytest.param(seen(ours=None, created_s=989.0), None, None, id="after a restart, the creation itself"),
        pytest.param(seen(ours=None, written_at_s=-900.0, created_s=-2000.0), None, None, id="long ago"),
    ],
)
def test_manual_changes(look: Seen, held: Held | None, expected: Held | None) -> None:
    assert manual_hold(look, held, 1800.0) == expected
