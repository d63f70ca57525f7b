"""What is computed fast is what the plain formula gives: counts over a history, histograms, damages, conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.codec import decode, encode
from autoscaler.core import histogram
from autoscaler.core.conditions import _RULES, conditions
from autoscaler.core.demand import _Since
from autoscaler.core.flows import Reading, accumulate
from autoscaler.core.groups import COUNTED, damaged, damaged_count
from autoscaler.model import (
    COLUMNS,
    NOT_ON_PAGE,
    ORIGINS,
    SAYS_NOTHING,
    Condition,
    Count,
    Histogram,
    Number,
    Origin,
    RouterSample,
    Source,
    State,
    Totals,
    WorkerSample,
)
from policies.model import Code, Missing, Reason, Role, Stage
from tests.autoscaler.pages import router, worker

COUNTS: tuple[Count, ...] = get_args(Count)
PLACES = [(origin, count) for origin in ORIGINS for count in COUNTS]
SOME = st.one_of(st.none(), st.integers(0, 50).map(float))


# Counts over a history.


@st.composite
def histories(draw: st.DrawFn) -> list[Totals]:
    """Rows with gaps, under a clock that may also be set back."""
    steps = draw(st.lists(st.sampled_from([1.0, 5.0, 20.0, -3.0]), min_size=1, max_size=12))
    columns = draw(st.lists(st.integers(0, len(PLACES) - 1), min_size=1, max_size=3, unique=True))
    now_s, found = 100.0, []
    for step_s in steps:
        now_s += step_s
        row: list[float | None] = [None] * len(PLACES)
        for column in columns:
            row[column] = draw(SOME)
        found.append(Totals(now_s, tuple(row)))
    return found


def scanned(totals: Sequence[Totals], column: int, start_s: float) -> tuple[float, float]:
    """From the newest entry back, until one that has the count is old enough."""
    latest = totals[-1]
    base = latest
    if latest.row[column] is None:
        return 0.0, 0.0
    for entry in reversed(totals):
        if entry.row[column] is not None:
            base = entry
            if entry.at_s <= start_s:
                break
    return cast(float, latest.row[column]) - cast(float, base.row[column]), latest.at_s - base.at_s


@given(histories(), st.floats(60, 200))
def test_an_increase_is_what_a_scan_of_the_history_gives(totals: list[Totals], start_s: float) -> None:
    since = _Since(totals, start_s)
    for column, (origin, count) in enumerate(PLACES):
        assert since.increase(origin, count) == scanned(totals, column, start_s)


def test_every_count_of_every_origin_has_a_place_of_its_own() -> None:
    assert [COLUMNS[origin][count] for origin, count in PLACES] == list(range(len(PLACES)))
    row = Totals(0.0, tuple(map(float, range(len(PLACES)))))
    assert [row.of(origin, count) for origin, count in PLACES] == list(row.row)


def test_a_history_comes_back_from_json_with_its_gaps() -> None:
    source = Source("a", 10.0, {"finished": 3.0}, Missing("x"), Missing("x"))
    state, _ = accumulate(State(started_s=0.0), [Reading("decode", source, 1.0, 5.0)], 10.0, 30.0)
    assert state.totals[0].of("decode", "finished") == 3.0
    assert state.totals[0].row.count(None) == len(PLACES) - 1
    assert decode(State, encode(State, state)) == state


# What a source has grown by.


def grown(reading: Reading, before: Source) -> dict[Count, float]:
    """Rules 1 and 3 of `flows`, for a source that goes on."""
    now, then = reading.source.counts, before.counts
    reset = {count for count in now if count not in reading.signed and now[count] < then.get(count, 0.0)}
    reset |= reading.signed if "finished" in reset else set()
    found: dict[Count, float] = {}
    for count, value in now.items():
        base = then.get(count, 0.0)
        if count in reset:
            base = value if len(reading.source.engines) > 1 else 0.0
        found[count] = value - (value if count in before.unsure else base)
    return found


def sources(at_s: float) -> st.SearchStrategy[Source]:
    counts = st.dictionaries(st.sampled_from(COUNTS), st.integers(0, 4).map(float))
    unsure = st.lists(st.sampled_from(COUNTS), max_size=2, unique=True).map(tuple)
    none = Missing("not given")
    return st.builds(
        lambda counts, unsure: Source("a", at_s, counts, none, none, ("0", "1")[: 1 + len(unsure) % 2], unsure),
        counts,
        unsure,
    )


@given(sources(0.0), sources(5.0), st.booleans())
def test_what_a_source_has_grown_by_follows_from_the_rules(before: Source, now: Source, arrives: bool) -> None:
    signed: frozenset[Count] = frozenset(("served", "arrivals")) if arrives else frozenset(("served",))
    reading = Reading("decode", replace(now, engines=before.engines), 0.0, 0.0, signed)
    state, _ = accumulate(State(sources=(before,)), [reading], 5.0, 30.0)
    assert state.sums["decode"] == grown(reading, before)
    row = {count: state.totals[-1].of("decode", count) for count in COUNTS}
    assert row == {count: state.sums["decode"].get(count) for count in COUNTS}


def test_of_several_engines_that_restart_a_count_that_is_not_given_is_none() -> None:
    none, origin = Missing("not given"), cast(Origin, "decode")
    before = Source("a", 0.0, {"finished": 9.0, "arrivals": 12.0}, none, none, ("0", "1"))
    now = replace(before, at_s=5.0, counts={"finished": 2.0})
    reading = Reading(origin, now, 0.0, 0.0, frozenset(("served", "arrivals")))
    state, why = accumulate(State(sources=(before,)), [reading], 5.0, 30.0)
    assert (state.sums[origin], [reason.code for reason in why]) == ({"finished": 0.0}, [Code.COUNTER_RESET])


# Histograms.


def histograms() -> st.SearchStrategy[Histogram]:
    bounds = (0.1, 1.0, float("inf"))
    counts = st.tuples(*[st.floats(0, 100)] * 3).map(lambda found: tuple(sorted(found)))
    return st.builds(lambda counts, sum_s: Histogram(bounds, counts, sum_s), counts, st.floats(0, 100))


@given(histograms(), histograms())
def test_differences_and_sums_are_taken_bucket_by_bucket(one: Histogram, other: Histogram) -> None:
    more, both = histogram.increase(one, other), histogram.add(one, other)
    assert isinstance(more, Histogram)
    assert isinstance(both, Histogram)
    fell = other.counts[-1] < one.counts[-1]
    plain = other.counts if fell else [max(0.0, b - a) for a, b in zip(one.counts, other.counts, strict=True)]
    assert more.counts == tuple(plain)
    assert both.counts == tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))


# Damages.

VALUES: st.SearchStrategy[Number] = st.sampled_from(
    (1.0, Missing(f"a {NOT_ON_PAGE}"), Missing(f"b is {SAYS_NOTHING}"), Missing(f"c is odd, {SAYS_NOTHING}"))
)


def causes(sample: RouterSample | WorkerSample, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        value = getattr(sample, name, None)
        if isinstance(value, Missing) and SAYS_NOTHING in value.missing:
            yield value.missing


@pytest.mark.parametrize("sample", [router(0.0, 7.0), worker(Role.DECODE, 0.0)], ids=("router", "worker"))
@given(changes=st.dictionaries(st.sampled_from(("arrivals", "prompts", "finished", "ttft", "in_flight")), VALUES))
def test_every_damaged_signal_is_told_and_a_damaged_count_is_the_first(
    sample: RouterSample | WorkerSample, changes: dict[str, Number]
) -> None:
    changed = replace(sample, **changes)  # type: ignore[arg-type]
    told = [reason.detail["why"] for reason in damaged([changed])]
    assert told == sorted(set(causes(changed, [field.name for field in fields(changed)])))
    assert damaged_count(changed) == next(causes(changed, COUNTED), "")


# Conditions.


@given(st.lists(st.sampled_from(list(Code)), max_size=6), st.booleans())
def test_conditions_are_the_table_read_rule_by_rule(codes: list[Code], looked: bool) -> None:
    why = [Reason(Stage.ACT, code, None, {"number": number}) for number, code in enumerate(codes)]
    for found, (kind, rule) in zip(conditions(why, looked=looked), _RULES.items(), strict=True):
        named = [reason for reason in why if reason.code in rule.codes]
        gravest = min((rule.codes.index(reason.code) for reason in named), default=None)
        opposite = "True" if rule.status == "False" else "False"
        fine = Condition(kind, opposite if looked else "Unknown", rule.fine if looked else "NotLooked", "")
        worst = Condition(kind, rule.status, rule.codes[gravest or 0].value, "; ".join(map(str, named)))
        assert found == (fine if gravest is None else worst)
