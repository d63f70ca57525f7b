"""Stalled groups: who holds work and stands still, and who does not; through the whole tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from autoscaler.core.stalled import stalled_after_s
from autoscaler.model import Observation, State, WorkerSample
from perfmodel.profile import load_profile
from policies.model import Code, Missing, Role
from tests.autoscaler.plant import Load, Plant, make_settings

DECODE_S, PREFILL_S = (stalled_after_s(role, load_profile()) for role in (Role.DECODE, Role.PREFILL))

Change = Callable[[WorkerSample, float], WorkerSample]


def moving(worker: WorkerSample, now_s: float) -> WorkerSample:
    """Counters that go on with time."""
    return replace(worker, prompt_tokens=now_s * 100, generation_tokens=now_s * 50, finished=now_s)


def standing(worker: WorkerSample, now_s: float) -> WorkerSample:
    """Counters that have stopped, with work in hand."""
    return replace(worker, prompt_tokens=4e5, generation_tokens=1e5, finished=1000.0, running=7.0)


def idle(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(standing(worker, now_s), running=0.0, waiting=0.0)


def only_deferred(worker: WorkerSample, now_s: float) -> WorkerSample:
    split = {"capacity": 0.0, "deferred": 9.0}
    return replace(standing(worker, now_s), running=0.0, waiting=9.0, waiting_by_reason=split)


def only_waiting(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(standing(worker, now_s), running=0.0, waiting=9.0)


def silent_counters(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(worker, running=7.0, generation_tokens=Missing("is not on the page"))


def plant_of(groups: int, changed: dict[str, Change], then: Change = moving) -> Plant:
    """A service with so many groups of each role, some of whose pods answer otherwise."""

    def change(observation: Observation) -> Observation:
        now_s = observation.now_s
        workers = (changed.get(w.pod, then)(w, now_s) for w in observation.samples.workers)
        return replace(observation, samples=replace(observation.samples, workers=tuple(workers)))

    kept = {"minGroups": groups, "coldStartS": 8}
    chosen = make_settings(prefill=kept, decode=kept)
    plant = Plant(lambda t: Load(1.0, 500.0, 60.0), settings=chosen, changes=change)
    for side in plant.sides.values():
        side.ready_at_s = [0.0] * groups
    return plant


def stalled(plant: Plant, role: Role) -> tuple[str, ...]:
    return plant.decisions[-1].signals[role].stalled


@pytest.mark.parametrize("role", Role)
def test_a_group_that_stands_while_its_peers_move_is_named_after_a_while(role: Role) -> None:
    name = f"{role}-0"
    plant = plant_of(2, {name: standing}).run(PREFILL_S if role is Role.PREFILL else DECODE_S)
    assert stalled(plant, role) == ()
    plant.run(2)
    assert stalled(plant, role) == (name,)
    assert stalled(plant, role.partner) == ()
    reason = next(reason for reason in plant.decisions[-1].why if reason.code is Code.GROUP_STALLED)
    assert (reason.role, reason.detail["groups"], reason.detail["named"]) == (role, 1, name)


@pytest.mark.parametrize("change", [moving, idle, only_deferred, silent_counters])
def test_who_moves_holds_nothing_waits_for_kv_or_counts_nothing_is_not_stalled(change: Change) -> None:
    plant = plant_of(1, {"decode-0": change}).run(DECODE_S + 20)
    assert stalled(plant, Role.DECODE) == ()


@pytest.mark.parametrize(("change", "found"), [(standing, ("prefill-0",)), (only_waiting, ())])
def test_one_alone_is_stalled_unless_it_may_be_kept_waiting(change: Change, found: tuple[str, ...]) -> None:
    plant = plant_of(1, {"prefill-0": change}).run(PREFILL_S + 20)
    assert stalled(plant, Role.PREFILL) == found


def test_waiting_with_an_empty_batch_is_a_stall_where_peers_move() -> None:
    plant = plant_of(2, {"prefill-1": only_waiting}).run(PREFILL_S + 5)
    assert stalled(plant, Role.PREFILL) == ("prefill-1",)


def test_it_is_over_when_anything_moves() -> None:
    plant = plant_of(2, {"decode-0": standing}).run(DECODE_S + 5)
    assert stalled(plant, Role.DECODE) == ("decode-0",)
    plant.changes = plant_of(2, {}).changes
    plant.run(1)
    assert stalled(plant, Role.DECODE) == ()


def test_a_controller_that_has_just_started_watches_anew() -> None:
    plant = plant_of(2, {"decode-0": standing}).run(DECODE_S + 5)
    plant.state = State()
    plant.run(DECODE_S - 5)
    assert stalled(plant, Role.DECODE) == ()


def test_the_memory_is_one_entry_a_pod_and_forgets() -> None:
    plant = plant_of(2, {}).run(30)
    assert len(plant.state.watched) == len(plant.seen[-1].samples.workers)
    plant.changes = lambda o: replace(o, samples=replace(o.samples, workers=()))
    plant.run(605)
    assert plant.state.watched == ()
