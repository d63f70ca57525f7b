"""The bridge: a report becomes an Observation, `tick` decides, and its steps become targets. It decides nothing.

Rules:
1. The report says what came and what ended since the last one; sums of these are the counters of one frontend, which
   began at 0 with the service. What the report does not count is missing, never 0: latency histograms, what each
   worker has done, the prompts of requests that still run.
2. Prompts are counted when requests end and tokens as they pass: two pages of the frontend.
3. `tick` is called until it plans no further step, each step applied to what is seen: within the seconds to the next
   report, the controller's loop does the same.
4. Targets stay within the limits of the context, whatever is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from autoscaler.core import tick
from autoscaler.model import (
    NOT_ON_PAGE,
    Decision,
    Fleet,
    Group,
    Observation,
    RoleFleet,
    RouterSample,
    Samples,
    State,
    Step,
    WorkerSample,
)
from autoscaler.settings import Settings
from benchmarks.dynosim.context import Context
from benchmarks.dynosim.report import Pass, Report, Traffic
from perfmodel.profile import Profile
from policies.budget import fit_budget
from policies.model import ROLES, Missing, Pair, Role

STEPS_MAX = 64
"""So many steps at one moment are an error of ours; none has needed more than a few."""
FRONTEND, ENDED = "frontend", "frontend-ended"
NOT_COUNTED = Missing(f"what the report does not count {NOT_ON_PAGE}")
NO_PASS = Missing("no pass of this group has ended yet")
NO_CLUSTER = Missing("the simulator has no cluster")
ONE_EACH = Pair(1, 1)


@dataclass(slots=True)
class Counters:
    """What the frontend has counted since the start."""

    arrivals: float = 0.0
    ended: float = 0.0
    ended_prompt_tokens: float = 0.0
    cached_tokens: float | None = None
    generated_tokens: float = 0.0

    def add(self, traffic: Traffic) -> None:
        """One interval more."""
        self.arrivals += traffic.num_req
        self.ended += traffic.shape_count
        self.ended_prompt_tokens += traffic.avg_isl * traffic.shape_count
        if traffic.hit_rate_count and traffic.avg_kv_hit_rate is not None:
            cached = traffic.avg_isl * traffic.shape_count * traffic.avg_kv_hit_rate
            self.cached_tokens = (self.cached_tokens or 0.0) + cached
        self.generated_tokens += traffic.generated


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in a group's last pass and behind it, and the KV of those in it."""

    running: float
    waiting: float
    kv_tokens: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the simulator is told."""

    groups: Pair
    next_tick_ms: float

    def to_json(self) -> dict[str, float | int]:
        """As the protocol has it."""
        return {
            "target_prefill": self.groups.prefill,
            "target_decode": self.groups.decode,
            "next_tick_ms": self.next_tick_ms,
        }


class Bridge:
    """One run's controller. Call `answer` for each report in order of time."""

    def __init__(self, context: Context, settings: Settings, profile: Profile) -> None:
        self.state = State()
        self.last: Decision | None = None
        self._context = context
        self._settings = settings
        self._profile = profile
        self._counters = Counters()
        self._first_seen_s: dict[tuple[Role, int], float] = {}
        self._ready_s: dict[tuple[Role, int], float] = {}

    def answer(self, report: Report) -> Answer:
        """The sizes to set now."""
        now_s = report.now_ms / 1e3
        if self.last is None:
            self._begin(now_s - report.traffic.duration_s)
        self._counters.add(report.traffic)
        seen = self._observation(report, now_s)
        for _ in range(STEPS_MAX):
            step = self._tick(seen, self._settings)
            if step is None:
                break
            seen = _applied(seen, step)
        wanted = Pair(*(_fleet(seen, role).replicas for role in ROLES))
        within, _ = fit_budget(wanted, ONE_EACH, self._context.gpus, self._context.max_gpus)
        next_tick_ms = report.now_ms + self._settings.spec.sync_period_s * 1e3
        return Answer(Pair(max(1, within.prefill), max(1, within.decode)), next_tick_ms)

    def _begin(self, at_s: float) -> None:
        """The service as it began, before anything came: what the first counts are counted from."""
        prefill, decode = (self._role(role, self._context.initial[role], (), ()) for role in ROLES)
        samples = Samples(routers=self._frontend(at_s, {}))
        self._tick(Observation(at_s, samples, Fleet(prefill, decode)), self._settings.without_writes())

    def _tick(self, seen: Observation, settings: Settings) -> Step | None:
        self.last = tick(self.state, seen, settings, self._profile)
        self.state = self.last.state
        return self.last.step

    def _observation(self, report: Report, now_s: float) -> Observation:
        passes = {role: {one.worker_id: one for one in report.of(role, "{}_fpm_snapshots")} for role in ROLES}
        decoding = sum(one.num_decode_requests + one.num_queued_decode for one in passes[Role.DECODE].values())
        in_flight = max(0.0, self._counters.arrivals - self._counters.ended)
        stages = {"prefill": max(0.0, in_flight - decoding), "decode": min(float(decoding), in_flight)}
        for role in ROLES:
            self._remember(role, report, now_s)
        samples = Samples(
            routers=self._frontend(now_s, stages),
            workers=tuple(
                self._worker(role, worker, passes[role].get(worker), now_s)
                for role in ROLES
                for worker in sorted(report.of(role, "active_{}_ids"))
            ),
        )
        prefill, decode = (
            self._role(
                role,
                report.of(role, "non_draining_{}_count"),
                sorted(report.of(role, "active_{}_ids")),
                sorted((*report.of(role, "starting_{}_ids"), *report.of(role, "draining_{}_ids"))),
                report.of(role, "draining_{}_count"),
            )
            for role in ROLES
        )
        return Observation(now_s, samples, Fleet(prefill, decode))

    def _remember(self, role: Role, report: Report, now_s: float) -> None:
        """When each worker was first seen at all, and first seen active."""
        for worker in (*report.of(role, "starting_{}_ids"), *report.of(role, "active_{}_ids")):
            self._first_seen_s.setdefault((role, worker), now_s)
        for worker in report.of(role, "active_{}_ids"):
            self._ready_s.setdefault((role, worker), now_s)

    def _frontend(self, now_s: float, in_flight: dict[str, float]) -> tuple[RouterSample, ...]:
        """The counters as two pages: what passes, and the prompts of what has ended."""
        counted = self._counters
        passing = RouterSample(
            uid=FRONTEND,
            pod=FRONTEND,
            at_s=now_s,
            arrivals=counted.arrivals,
            prompt_tokens=NOT_COUNTED,
            generation_tokens=counted.generated_tokens,
            finished=counted.ended,
            failed=NOT_COUNTED,
            ttft=NOT_COUNTED,
            itl=NOT_COUNTED,
            in_flight=in_flight,
        )
        ended = replace(
            passing,
            uid=ENDED,
            pod=ENDED,
            arrivals=NOT_COUNTED,
            prompt_tokens=counted.ended_prompt_tokens,
            generation_tokens=NOT_COUNTED,
            finished=NOT_COUNTED,
            prompts=counted.ended,
            cached_tokens=NOT_COUNTED if counted.cached_tokens is None else counted.cached_tokens,
            tokens_at="end",
            in_flight=NOT_COUNTED,
        )
        return passing, ended

    def _worker(self, role: Role, worker: int, last: Pass | None, now_s: float) -> WorkerSample:
        """An active group as its last pass shows it."""
        name, capacity = _name(role, worker), self._context.kv_tokens(role)
        load = NO_PASS if last is None else _load(role, last)
        return WorkerSample(
            uid=name,
            pod=name,
            role=role,
            group=name,
            at_s=now_s,
            running=load if isinstance(load, Missing) else load.running,
            waiting=load if isinstance(load, Missing) else load.waiting,
            waiting_by_reason=load if isinstance(load, Missing) else {"capacity": load.waiting},
            kv_usage=load if isinstance(load, Missing) else min(1.0, load.kv_tokens / capacity),
            prompt_tokens=NOT_COUNTED,
            generation_tokens=NOT_COUNTED,
            finished=NOT_COUNTED,
            ttft=NOT_COUNTED,
            itl=NOT_COUNTED,
            in_flight=load if isinstance(load, Missing) else load.running + load.waiting,
            kv_capacity_tokens=float(capacity),
            start_s=self._first_seen_s[role, worker],
            ready_s=self._ready_s[role, worker],
        )

    def _role(
        self, role: Role, replicas: int, active: Iterable[int], others: Iterable[int], draining: int = 0
    ) -> RoleFleet:
        """A workload of which every group is one pod; before the first report, its groups are known by number alone."""
        ready = tuple(Group(_name(role, worker), (_name(role, worker),)) for worker in active)
        rest = tuple(Group(_name(role, worker), (_name(role, worker),), ready=False) for worker in others)
        return RoleFleet(
            kind="Deployment",
            namespace="default",
            name=role.value,
            uid=role.value,
            created_s=0.0,
            replicas=replicas,
            ready=len(ready),
            present=len(ready) + len(rest) or replicas,
            pods_per_group=1,
            gpus_per_group=self._context.gpus[role],
            fit=NO_CLUSTER,
            draining=draining,
            groups=(*ready, *rest),
            owner="us",
        )


def _load(role: Role, last: Pass) -> Load:
    if role is Role.PREFILL:
        held = last.sum_prefill_tokens + last.sum_prefill_kv_tokens
        return Load(float(last.num_prefill_requests), float(last.num_queued_prefill), float(held))
    return Load(float(last.num_decode_requests), float(last.num_queued_decode), float(last.sum_decode_kv_tokens))


def _fleet(seen: Observation, role: Role) -> RoleFleet:
    fleet = seen.fleet[role]
    assert isinstance(fleet, RoleFleet)
    return fleet


def _applied(seen: Observation, step: Step) -> Observation:
    """What is seen once a step is carried out; nothing has started or drained yet."""
    old = _fleet(seen, step.role)
    new = replace(old, replicas=step.after) if step.kind == "replicas" else replace(old, min_pods=step.after)
    fleet = seen.fleet
    return replace(
        seen,
        fleet=replace(fleet, prefill=new) if step.role is Role.PREFILL else replace(fleet, decode=new),
    )


def _name(role: Role, worker: int) -> str:
    return f"{role.value}-{worker}"
