"""Field cases of the controller and of workloads, each with its exact input, through the whole tick in a closed loop.

| case | where |
|---|---|
| idle-or-blind | `test_field_cases_metrics.py`: (a) `test_idle_is_a_true_zero_and_latencies_say_no_traffic`, (b)
  `test_vanished_series_change_nothing_and_are_named`, (c) `test_a_role_that_is_down_is_kept_and_its_partner_shrinks`;
  `test_field_cases_prometheus.py`: series that vanish later |
| inert-but-green | `test_field_cases_metrics.py`: `test_a_model_name_that_matches_nothing_is_said_within_two_ticks`;
  `test_field_cases_prometheus.py`: `test_a_label_that_is_a_little_off_is_said_within_two_ticks`; `test_doctor.py`:
  `test_what_matches_nothing_is_told_as_the_controller_tells_it` |
| unreachable-slo, budget-reads-zero, field-dropped, frozen-minimum | here |
| one-dead-worker | here: what counts as 0 %, and dead pods that go first; the rest in `test_field_cases_metrics.py` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from autoscaler.adapters.fleet import World as Objects
from autoscaler.adapters.fleet import look
from autoscaler.model import Decision, Observation, RoleFleet
from autoscaler.settings import Settings
from perfmodel import prefill
from perfmodel.profile import Profile, load_profile
from policies.model import ROLES, Code, Missing, Pair, Reason, Role
from simulator.ours import Ours
from simulator.world import World
from tests.autoscaler.field import HANGS, Engine, Traffic, gateway, service, settings, vllm
from tests.autoscaler.objects import Object, at, container, lws, node, pod, podgroup
from tests.autoscaler.plant import Load, Plant, make_settings
from tests.simulator.small import scenario, world

SILENCE = Load(0.0, 0.0, 0.0)


def codes(decision: Decision) -> set[Code]:
    return {reason.code for reason in decision.why}


def reason(decision: Decision, code: Code) -> Reason:
    return next(reason for reason in decision.why if reason.code is code)


def condition(decision: Decision, kind: str) -> tuple[str, str]:
    return next((c.status, c.message) for c in decision.conditions if c.type == kind)


# unreachable-slo


PROMPT_TOKENS, ALONE_MS, TARGET_MS = 32_000, 620.0, 500.0
TRAFFIC_S, SILENCE_S = 600, 1200


def slow_prompts() -> Profile:
    """A 32k prompt prefills alone in 0.62 s."""
    plain = load_profile()
    factor = ALONE_MS / prefill.prompt_ms(plain, PROMPT_TOKENS)
    cells = tuple(tuple(ms * factor for ms in row) for row in plain.prefill.ms)
    return replace(plain, prefill=replace(plain.prefill, ms=cells))


def never_reachable(decision: Decision) -> bool:
    """Whether the reason is there, with both numbers."""
    told = [found.detail for found in decision.why if found.code is Code.SLO_UNREACHABLE]
    assert all(d["target_ms"] == TARGET_MS and float(d["reachable_ms"]) >= ALONE_MS for d in told)
    return bool(told)


def test_a_prompt_that_is_too_long_alone_adds_nothing_and_no_length_outlives_its_traffic() -> None:
    def load(t: float) -> Load:
        if t < TRAFFIC_S + 100:
            return Load(0.2, PROMPT_TOKENS, 100.0)
        return SILENCE if t < TRAFFIC_S + 100 + SILENCE_S else Load(0.2, 100.0, 100.0)

    chosen = make_settings(slo={"ttft": {"targetMs": TARGET_MS}}, prefill={"maxGroups": 8})
    plant = Plant(load, settings=chosen, profile=slow_prompts()).run(TRAFFIC_S)
    assert plant.groups().prefill <= 2
    assert never_reachable(plant.decisions[-1])
    assert condition(plant.decisions[-1], "SLOReachable")[0] == "False"
    before = plant.groups()
    plant.run(100)
    assert plant.groups() == before, "100 further ticks add nothing"
    assert max(side.target.groups.prefill for side in plant.decisions if side.target) <= 2
    plant.run(SILENCE_S)
    assert plant.groups() == Pair(1, 1)
    assert plant.decisions[-1].signals.demand.prompt_tokens_mean == 0.0
    assert not never_reachable(plant.decisions[-1])
    plant.run(60)
    assert plant.groups() == Pair(1, 1)
    assert plant.decisions[-1].signals.demand.prompt_tokens_mean == pytest.approx(100.0)
    assert not any(map(never_reachable, plant.decisions[-30:]))


@pytest.mark.parametrize("seed", range(4))
def test_poisson_arrivals_of_such_prompts_at_real_queues_never_need_a_third_group(seed: int) -> None:
    """In the simulator: prompts wait, and the controller learns what it sees."""
    period_s, further_s = 5.0, 100 * 5.0
    traffic_s = TRAFFIC_S + further_s
    spec = {"maxGroups": 8, "coldStartS": 6, "maxNumSeqs": 16}
    one = scenario(
        durationS=traffic_s + SILENCE_S,
        fleet__nodes={"count": 8, "gpus": 4},
        autoscaler__slo={"ttft": {"targetMs": TARGET_MS}},
        autoscaler__prefill=spec,
        autoscaler__decode=spec,
        autoscaler__gpuBudget=32,
        autoscaler__mode="Active",
        autoscaler__syncPeriodS=period_s,
    )
    rng, at_s, requests = Random(seed), 0.0, []
    while (at_s := at_s + rng.expovariate(0.2)) < traffic_s:
        requests.append((at_s, PROMPT_TOKENS, 100))
    profile = slow_prompts()
    ours = Ours(one.settings, profile)
    decisions: list[Decision] = []
    sizes: list[int] = []

    def watch(seen: World, _: Observation, wanted: object) -> None:
        assert ours.last
        decisions.append(ours.last)
        sizes.append(seen.workloads[Role.PREFILL].replicas)

    result = world(one, ours, seed, requests, profile).run(watch)
    assert result.problems == ()
    assert max(sizes) <= 2
    busy = [decision for decision in decisions if 60 < decision.state.totals[-1].at_s < traffic_s]
    assert any(map(never_reachable, busy))
    assert sizes[-1] == 1
    assert not never_reachable(decisions[-1])


# budget-reads-zero


GROUP_GPUS, BUDGET_GPUS = 4, 16
ALIKE = Pair(GROUP_GPUS, GROUP_GPUS)
BUSY, LONG_PROMPTS, LONG_ANSWERS = Load(40.0, 6000.0, 600.0), Load(6.0, 8000.0, 20.0), Load(8.0, 100.0, 900.0)


def requests(gpus: int | None) -> Object:
    """A pod whose container asks for GPUs, in requests and not in limits."""
    return {"containers": [container(gpus)]}


SECOND_CONTAINER: Object = {"containers": [container(None), container(2)]}
CLAIMS: Object = {"containers": [container(None)], "resourceClaims": [{"name": "gpu", "resourceClaimName": "shared"}]}


@dataclass
class Templates(Plant):
    """The fleet as objects of a cluster: pod templates, pods, PodGroups, read by the adapter."""

    specs: Mapping[Role, Object] = field(default_factory=lambda: dict.fromkeys(ROLES, requests(2)))
    costs: Mapping[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, GROUP_GPUS))
    paid_gpus: list[int] = field(default_factory=list)

    def observe(self) -> Observation:
        workloads = [
            lws(one.value, replicas=len(side.ready_at_s), size=self.pods_per_group, **self.specs[one])
            for one, side in self.sides.items()
        ]
        pods = [made for one in ROLES for made in self._pods(one)]
        podgroups = [podgroup(one.value, self.sides[one].min_pods) for one in ROLES]
        objects = Objects(workloads, pods, podgroups, [node("n1", 64)])
        return replace(super().observe(), fleet=look(objects, "ns", "demo", self.now_s).fleet)

    def _pods(self, role: Role) -> list[Object]:
        side = self.sides[role]
        staying: list[tuple[int, bool, Object]] = [
            (index, at_s <= self.now_s, {}) for index, at_s in enumerate(side.ready_at_s)
        ]
        leaving = [
            (100 + index, True, {"deletionTimestamp": at(gone_s)})
            for index, gone_s in enumerate(side.gone_at_s)
            if gone_s > self.now_s
        ]
        made = []
        for index, ready, meta in (*staying, *leaving):
            for worker in range(self.pods_per_group):
                one = pod(role.value, index, worker, ready=ready, **meta)
                one["spec"] |= self.specs[role]
                made.append(one)
        return made

    def _check(self) -> None:
        self.paid_gpus.append(sum(self._present(role) * self.costs[role] for role in ROLES))


def templates(specs: Mapping[Role, Object], load: Callable[[float], Load], costs: Pair = ALIKE) -> Templates:
    """P 2 and D 2, at most 6 of each, budget 16."""
    role = {"maxGroups": 6, "scaleDown": {"stabilizationS": 20}, "coldStartS": 8}
    chosen = make_settings(gpuBudget=BUDGET_GPUS, prefill=role, decode={**role, "maxNumSeqs": 16})
    made = Templates(load, settings=chosen, specs=specs, costs={role: costs[role] for role in ROLES})
    for side in made.sides.values():
        side.ready_at_s = [0.0, 0.0]
    return made


def wants_six_of_each(decision: Decision) -> bool:
    sized = {
        r.role: float(r.detail["groups"]) for r in decision.why if r.code in (Code.SIZED_FOR_TTFT, Code.SIZED_FOR_ITL)
    }
    return all(sized[role] >= 6 for role in ROLES)


@pytest.mark.parametrize("spec", [SECOND_CONTAINER, requests(2)], ids=["second container", "requests without limits"])
def test_gpus_are_found_wherever_the_template_has_them_and_the_budget_holds_at_every_step(spec: Object) -> None:
    def load(t: float) -> Load:
        phases = (BUSY, LONG_PROMPTS, LONG_ANSWERS, BUSY, SILENCE, BUSY)
        return phases[min(int(t / 90), len(phases) - 1)]

    plant = templates(dict.fromkeys(ROLES, spec), load)
    reached = []
    for _ in range(6):
        plant.run(90)
        reached.append(plant.groups())
    assert max(plant.paid_gpus) == BUDGET_GPUS
    for role in ROLES:
        fleet = plant.seen[-1].fleet[role]
        assert isinstance(fleet, RoleFleet)
        assert fleet.gpus_per_group == GROUP_GPUS
    assert reached[0] == Pair(2, 2)
    assert wants_six_of_each(plant.decisions[89])
    capped = reason(plant.decisions[89], Code.BUDGET_CAPPED)
    assert (capped.detail["wanted"], capped.detail["wanted_gpus"]) == (6, 12 * GROUP_GPUS)
    assert reached[1] == Pair(3, 1), "what one role gives back the other one gets"
    assert reached[2] == Pair(1, 3)
    assert reached[4] == Pair(1, 1)
    assert reached[5] == Pair(2, 2)


@pytest.mark.parametrize("roles", [(Role.PREFILL,), (Role.DECODE,), ROLES], ids=["prefill", "decode", "both"])
def test_a_claim_that_cannot_be_resolved_is_an_unknown_cost_which_never_grows_and_may_shrink(
    roles: Sequence[Role],
) -> None:
    specs = {role: CLAIMS if role in roles else requests(2) for role in ROLES}
    plant = templates(specs, lambda t: BUSY if t < 60 else SILENCE).run(60)
    assert wants_six_of_each(plant.decisions[-1])
    assert all(plant.seen[-1].fleet[role].gpus_per_group == Missing(CLAIMED) for role in roles)  # type: ignore[union-attr]
    assert all(decision.target is None or decision.target.groups == Pair(2, 2) for decision in plant.decisions)
    assert plant.groups() == Pair(2, 2)
    status, message = condition(plant.decisions[-1], "AbleToScale")
    assert status == "False"
    assert CLAIMED in message
    assert {r.role for r in plant.decisions[-1].why if r.code is Code.COST_UNKNOWN} == set(ROLES)
    plant.run(240)
    assert plant.groups() == Pair(1, 1)


CLAIMED = "GPUs come through resourceClaims, whose cost is not known"


def test_an_explicit_zero_costs_nothing() -> None:
    plant = templates(dict.fromkeys(ROLES, requests(0)), lambda t: BUSY, Pair(0, 0)).run(60)
    assert wants_six_of_each(plant.decisions[-1])
    assert plant.groups() == Pair(6, 6)
    mixed = templates({Role.PREFILL: requests(0), Role.DECODE: requests(2)}, lambda t: BUSY, Pair(0, GROUP_GPUS)).run(
        90
    )
    assert mixed.groups() == Pair(6, 4)
    assert max(mixed.paid_gpus) == BUDGET_GPUS


# one-dead-worker


DEAD = 5
IDLE = vllm(Engine(prompt_tokens=1e6, generation_tokens=3e5, finished=1000))


async def grown(answer: str) -> tuple[int, ...]:
    """What D is to be in the first four ticks, where one of eight pods answers this."""
    roles = {"prefill": {"maxGroups": 16}, "decode": {"maxGroups": 16, "maxNumSeqs": 16}}
    traffic = Traffic(20.0, 4, 8, lambda role, group: answer if (role, group) == (Role.DECODE, DEAD) else None)
    async with service(4, 8, traffic.page, chosen=settings(metrics={"scrapeTimeoutS": 0.1}, **roles)) as field:
        traffic.field = field
        await field.run(2)
        assert field.replicas[Role.DECODE] > 8
        await field.run(2)
        return tuple(decision.target.groups.decode for decision in field.decisions if decision.target)


async def test_on_the_way_up_a_dead_worker_counts_as_one_that_does_nothing() -> None:
    assert await grown(HANGS) == await grown(IDLE)


@pytest.mark.parametrize("counts", ["workers", "router"])
@pytest.mark.parametrize(("dead", "left"), [((0, 1, 2), 4), ((5, 6, 7), 1)], ids=["stay longest", "go first"])
async def test_with_load_gone_no_group_is_given_up_for_the_dead_ones_being_quiet(
    dead: tuple[int, ...], left: int, counts: str
) -> None:
    """At every tick there is a group that lives beside the dead ones that are still there."""
    traffic = Traffic(0.0, 4, 8, lambda role, group: HANGS if role is Role.DECODE and group in dead else None)
    quick = {"scaleDown": {"stabilizationS": 60}, "maxGroups": 16}
    chosen = settings(prefill=quick, decode=quick, metrics={"scrapeTimeoutS": 0.05})

    def router() -> str:
        return gateway({"+Inf": traffic.requests}, traffic.requests, 1000.0)

    counted = router if counts == "router" else None
    async with service(4, 8, traffic.page, chosen=chosen, router=counted) as field:
        traffic.field = field
        for _ in range(20):
            last = await field.run(1)
            assert field.replicas[Role.DECODE] >= 1 + sum(group < field.replicas[Role.DECODE] for group in dead)
        assert last.signals.demand.basis == ("router" if counts == "router" else "prefill")
        assert field.replicas == {Role.PREFILL: 1, Role.DECODE: left}


# field-dropped


@pytest.mark.parametrize("kind", ["LeaderWorkerSet", "Deployment"])
def test_a_dropped_field_is_put_back_at_the_next_tick_whatever_limits_growth(kind: str) -> None:

    def of_kind(seen: Observation) -> Observation:
        assert isinstance(seen.fleet.prefill, RoleFleet)
        return replace(seen, fleet=replace(seen.fleet, prefill=replace(seen.fleet.prefill, kind=kind)))

    slow_up = {"stabilizationS": 120, "policies": [{"type": "Groups", "value": 1, "periodS": 60}]}
    spec = {"maxGroups": 6, "scaleUp": slow_up, "scaleDown": {"stabilizationS": 60}, "coldStartS": 8}
    plant = Plant(lambda t: Load(9.0, 4000.0, 120.0), settings=make_settings(prefill=spec))
    plant.sides[Role.PREFILL].ready_at_s = [0.0] * 6
    plant.changes = of_kind
    plant.run(150)
    assert plant.groups().prefill == 6
    for _ in range(2):
        remembered = plant.state.proposals
        assert remembered
        plant.drop_by_apply(Role.PREFILL, "helm")
        assert plant.groups().prefill == 1
        plant.run(1)
        step = plant.decisions[-1].step
        assert step is not None
        assert (step.kind, step.before, step.after) == ("replicas", 1, 6)
        assert plant.groups().prefill == 6
        restored = reason(plant.decisions[-1], Code.FIELD_RESTORED)
        assert (restored.detail["by"], restored.detail["ours"], restored.detail["found"]) == ("helm", 6, 1)
        assert condition(plant.decisions[-1], "ForeignWriter")[0] == "True"
        kept = set(remembered) & set(plant.state.proposals)
        assert len(kept) >= len(remembered) - 1, "the stabilisation history survives"
        plant.run(60)
        assert plant.groups().prefill == 6
    plant.drop_by_apply(Role.PREFILL, "helm")
    plant.run(30)
    assert plant.groups().prefill == 1, "the third time in 10 min it stops fighting"
    assert "helm" in str(reason(plant.decisions[-1], Code.RESTORE_GIVEN_UP))
    assert condition(plant.decisions[-1], "AbleToScale")[0] == "False"


# frozen-minimum


def test_the_minimum_moves_with_the_groups_and_never_asks_for_those_that_are_gone() -> None:
    """3 groups of 4 pods, a minimum of 12; then 1, a killed pod, and 2. No role is ever scaled to 0 by us."""

    def at_most(groups: int) -> Settings:
        return make_settings(gpuBudget=64, prefill={"maxGroups": groups, "scaleDown": {"stabilizationS": 20}})

    loads = [Load(9.0, 4000.0, 120.0)]
    plant = Plant(lambda t: loads[-1], settings=at_most(3), pods_per_group=4, gpus_per_group=4)
    side = plant.sides[Role.PREFILL]
    side.ready_at_s, side.min_pods = [0.0] * 3, 12
    plant.sides[Role.DECODE].min_pods = 4
    plant.run(60)
    assert plant.groups().prefill == 3
    assert side.min_pods == 12

    loads.append(Load(0.1, 500.0, 20.0))
    plant.run(240)
    assert plant.groups().prefill == 1
    assert side.min_pods == 4
    moved = [d.step for d in plant.decisions if d.step and d.step.role is Role.PREFILL]
    last = [(step.kind, step.after) for step in moved][-3:]
    assert ("min_count", 4) in last, "before the pods go: the plant refuses the opposite"

    side.ready_at_s = [plant.now_s + 8]
    plant.run(20)
    assert side.min_pods == 4, "the pod that is made again is admitted beside the three that run"

    loads.append(Load(9.0, 4000.0, 120.0))
    plant.settings = at_most(2)
    minimums = []
    for _ in range(60):
        plant.run(1)
        minimums.append(side.min_pods)
        assert side.min_pods <= 4 * sum(at_s <= plant.now_s for at_s in side.ready_at_s)
    assert plant.groups().prefill == 2
    assert set(minimums) <= {4, 8}


@pytest.mark.parametrize("edited", [2, 12])
def test_a_minimum_edited_by_hand_is_corrected_within_a_tick(edited: int) -> None:
    chosen = make_settings(gpuBudget=64)
    plant = Plant(lambda t: Load(1.0, 500.0, 20.0), settings=chosen, pods_per_group=4, gpus_per_group=4)
    for side in plant.sides.values():
        side.min_pods = 4
    plant.run(40)
    plant.sides[Role.DECODE].min_pods = edited
    plant.run(1)
    assert plant.sides[Role.DECODE].min_pods == 4
    assert {Code.LOWER_MINIMUM, Code.RAISE_MINIMUM} & codes(plant.decisions[-1])
