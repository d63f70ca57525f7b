"""The embedded API server has the habits of the real one: one table of calls, two servers, compared answers.

Every scenario of the table is played on both, each in a namespace of its own; what differs must be in the table of
known differences, and what is in that table must differ.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest

from kubeapi.config import Config, load_config
from kubeapi.kinds import RRA
from localcluster.apiserver import ApiServer
from roleratio.embedded import fill_in
from tests.apiserver.habits import (
    calls_delete,
    calls_gangs,
    calls_read,
    calls_rra,
    calls_sub,
    calls_write,
    known,
    things,
)
from tests.apiserver.habits.compare import Difference, Reader, compare
from tests.apiserver.habits.play import Answer, Call, merged, player
from tests.controlplane.plane import ControlPlane

_ROWS = (calls_write, calls_gangs, calls_sub, calls_delete, calls_read, calls_rra)
SCENARIOS = {name: calls for rows in _ROWS for name, calls in rows.SCENARIOS.items()}
MODELS = {RRA: fill_in}
_AT_ONCE = 8


@dataclass(frozen=True)
class Found:
    """Where the answers to one row differ."""

    call: str
    difference: Difference

    def __str__(self) -> str:
        path, real, embedded = self.difference
        return f"{self.call}: {path}: the real server says {real!r}, the embedded one {embedded!r}"


@pytest.fixture(scope="module")
def found(control_plane: ControlPlane, lws_crd: None, rra_crd: None) -> list[Found]:
    """All differences, after all scenarios were played on both servers."""
    return asyncio.run(_play_all(load_config(control_plane.kubeconfig)))


async def test_one_server_does_not_differ_from_itself() -> None:
    """So whatever is found against a real server is not the comparison's own doing."""
    async with ApiServer(models=MODELS) as one, ApiServer(models=MODELS) as other:
        found = [await _play(scenario, Config(one.url), Config(other.url), settles=False) for scenario in SCENARIOS]
    assert [str(it) for it in chain.from_iterable(found)] == []


def test_the_rows_of_a_scenario_have_names_of_their_own() -> None:
    for scenario, calls in SCENARIOS.items():
        names = [call.name for call in (*things.BEGIN, *calls, *things.END)]
        assert sorted(names) == sorted(set(names)), scenario


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"spec": {"a": 2}}, "body.spec.a"),
        ({"metadata": {"uid": "third"}}, "body.metadata.uid"),
        ({"metadata": {"resourceVersion": "6"}}, "body.metadata.resourceVersion"),
        ({"items": [{"kind": "Pod"}]}, "body.items"),
        ({"time": "2026-01-01T00:00:00.5Z"}, "body.time"),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], path: str) -> None:
    meta = {"name": "n", "uid": "first", "resourceVersion": "5"}
    pod = {"kind": "Pod", "metadata": meta, "spec": {"a": 1}, "time": "2026-01-01T00:00:00Z"}
    other = merged(pod, {"metadata": {"uid": "second", "resourceVersion": "9"}, "time": "2027-01-01T00:00:00Z"})
    left, right = Reader("ns"), Reader("ns")
    assert compare(left.read(Answer(200, pod)), right.read(Answer(200, other))) == []
    found = compare(left.read(Answer(200, pod)), right.read(Answer(200, merged(other, change))))
    assert path in [it.path for it in found]


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_the_answers_are_the_same(found: list[Found], scenario: str) -> None:
    mine = [it for it in found if it.call.startswith(f"{scenario}/")]
    unknown = [str(it) for it in mine if known.reason(it.call, it.difference) is None]
    assert not unknown, "\n".join(unknown)


def test_every_known_difference_still_differs(found: list[Found]) -> None:
    used = {known.reason(it.call, it.difference) for it in found}
    stale = [row.why for row in (*known.KNOWN, *known.ADDED) if row not in used]
    assert not stale, "no longer differs: " + "; ".join(stale)


async def _play_all(real: Config) -> list[Found]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(scenario: str, embedded: Config) -> list[Found]:
        async with places:
            return list(await _play(scenario, real, embedded, settles=True))

    async with ApiServer(models=MODELS) as server:
        results = await asyncio.gather(*(one(scenario, Config(server.url)) for scenario in SCENARIOS))
    return [it for result in results for it in result]


async def _play(scenario: str, real: Config, embedded: Config, *, settles: bool) -> Iterator[Found]:
    calls = (*things.BEGIN, *SCENARIOS[scenario], *things.END)
    namespace = f"habits-{secrets.token_hex(4)}"
    sides = await asyncio.gather(
        _answers(calls, real, namespace, settles=settles), _answers(calls, embedded, namespace, settles=False)
    )
    readers = Reader(namespace), Reader(namespace)
    pairs = ((readers[0].read(left), readers[1].read(right)) for left, right in zip(*sides, strict=True))
    return (
        Found(f"{scenario}/{call.name}", difference)
        for call, pair in zip(calls, pairs, strict=True)
        for difference in compare(*pair)
    )


async def _answers(calls: tuple[Call, ...], config: Config, namespace: str, *, settles: bool) -> list[Answer]:
    async with player(config, namespace, settles=settles) as side:
        return [await side.play(call) for call in calls]
