"""One tick of every service of a fleet, on one core: how long a round takes, its memory, and its linearity.

How: each fleet size has a process of its own, since its memory is measured. A few services live through their history
under a diurnal, noisy demand and follow what is decided for them; the fleet is many copies of them, every one with its
own noise from then on. A round looks at one service after the other and ticks it with the state that its last tick
handed on; only the ticks are timed, in seconds of the processor, so that others on the machine do not count. The
largest fleet is measured with learned forecasts beside its ticks, too. A service has a router and one worker per TP
group, whose samples have counts of their own and share bounds, as pages give them.
"""

from __future__ import annotations

import json
import math
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist

import psutil

from autoscaler.core import tick
from autoscaler.model import (
    Decision,
    Fleet,
    Group,
    Histogram,
    Observation,
    RoleFleet,
    RouterSample,
    Samples,
    State,
    Step,
    WorkerSample,
)
from autoscaler.outlook import Learned
from autoscaler.settings import Settings, parse_settings
from benchmarks.figure import Figure, figure
from benchmarks.objects import CREATED_S
from benchmarks.processes import BenchmarkError
from perfmodel.profile import DEFAULT_PROFILE, Profile, load_profile
from policies.model import ROLES, Role
from roleratio.cli import Parser
from serving.metrics import FINE_BUCKETS_S, ITL_BUCKETS_S, TTFT_BUCKETS_S

LIMIT_MS, LIMIT_MB, LIMIT_BEND = 1000.0, 300.0, 1.3
LIMIT_LEARNING_MB = 600.0
NAMESPACE, PODS_PER_GROUP = "fleet", 2
MOST_GROUPS, COLD_START_S, DAY_S, NOISE = 8, 120.0, 86400.0, 0.1
LEADS = dict.fromkeys(ROLES, COLD_START_S)
ABOUT = ((0.4, 0.8), (0.03, 0.4))
"""Median in seconds and spread (sigma of the logarithm) of TTFT and ITL."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many services, how often, and what went before."""

    services: tuple[int, ...] = (100, 300, 1000)
    rounds: int = 10
    history_s: float = 1200.0
    lives: int = 20
    learning: bool = False
    """With learned forecasts: three series of each service."""


DEFAULT = Sizes()


@dataclass(frozen=True, slots=True)
class Spread:
    """A latency's buckets, and which share of all observations each has at most."""

    bounds_s: tuple[float, ...]
    shares: tuple[float, ...]
    mean_s: float

    @classmethod
    def over(cls, bounds_s: Sequence[float], median_s: float, sigma: float) -> Spread:
        """Log-normally distributed."""
        bell = NormalDist(math.log(median_s), sigma)
        shares = (*(bell.cdf(math.log(bound_s)) for bound_s in bounds_s), 1.0)
        return cls((*map(float, bounds_s), math.inf), shares, median_s * math.exp(sigma**2 / 2))

    def of(self, total: float) -> Histogram:
        """The cumulative histogram after so many observations."""
        counts = tuple(float(round(total * share)) for share in self.shares)
        return Histogram(self.bounds_s, counts, total * self.mean_s)


ROUTER_TTFT, ROUTER_ITL = (Spread.over(FINE_BUCKETS_S, *about) for about in ABOUT)
WORKER_TTFT, WORKER_ITL = Spread.over(TTFT_BUCKETS_S, *ABOUT[0]), Spread.over(ITL_BUCKETS_S, *ABOUT[1])


@dataclass(slots=True)
class Life:
    """One service: its demand, what its router has counted, its TP groups, and what the controller remembers.

    `rate_rps` is the mean over a day. `groups` and `floors` (what the gang minimum protects) are as last written.
    """

    rate_rps: float
    phase_s: float
    prompt_tokens: float
    output_tokens: float
    groups: dict[Role, int]
    floors: dict[Role, int]
    learned: Learned | None = None
    requests: float = 1e5
    state: State = field(default_factory=State)

    @classmethod
    def born(cls, rng: random.Random, learned: Learned | None) -> Life:
        """A small service: some groups of each role."""
        groups = {role: rng.randint(2, 4) for role in ROLES}
        rate_rps, phase_s = rng.uniform(4.0, 12.0), rng.uniform(0.0, DAY_S)
        lengths, floors = (rng.uniform(800, 2000), rng.uniform(100, 300)), dict.fromkeys(ROLES, 1)
        return cls(rate_rps, phase_s, *lengths, groups, floors, learned)

    def flow(self, now_s: float, period_s: float, rng: random.Random) -> None:
        """Let requests come and go: a daily wave, a noise about it, and chance."""
        wave = 1 + 0.5 * math.sin(2 * math.pi * (now_s + self.phase_s) / DAY_S)
        expected = self.rate_rps * period_s * wave * rng.lognormvariate(0.0, NOISE)
        self.requests += max(0.0, round(rng.gauss(expected, math.sqrt(expected))))

    def follow(self, step: Step | None) -> None:
        """Do what was decided, at once."""
        if step and step.kind == "replicas":
            self.groups[step.role] = step.after
        elif step:
            self.floors[step.role] = step.after // PODS_PER_GROUP

    def tick(self, seen: Observation, settings: Settings, profile: Profile) -> Decision:
        """As the live controller does it."""
        if self.learned:
            seen = replace(seen, outlook=self.learned.say(seen.now_s, LEADS))
        decision = tick(self.state, seen, settings, profile)
        if self.learned:
            self.learned.see(decision)
        self.state = decision.state
        return decision

    def seen(self, now_s: float) -> Observation:
        """What a tick is given."""
        tokens = self.requests * self.output_tokens
        router = RouterSample(
            uid="router-0",
            pod="router-0",
            at_s=now_s,
            arrivals=self.requests,
            prompt_tokens=self.requests * self.prompt_tokens,
            generation_tokens=tokens,
            finished=self.requests - 10.0,
            failed=0.0,
            ttft=ROUTER_TTFT.of(self.requests),
            itl=ROUTER_ITL.of(tokens),
            in_flight={"unassigned": 0.0, "prefill": 2.0, "decode": 8.0},
            engine="roleratio-router",
            ready_s=CREATED_S,
        )
        workers = [self._worker(role, index, now_s) for role in ROLES for index in range(self.groups[role])]
        fleet = Fleet(self._fleet(Role.PREFILL), self._fleet(Role.DECODE))
        return Observation(now_s, Samples((router,), tuple(workers)), fleet)

    def _worker(self, role: Role, index: int, now_s: float) -> WorkerSample:
        pod, prefill, share = f"{role}-{index}", role is Role.PREFILL, 1 / self.groups[role]
        done = float(int(self.requests * share))
        tokens = done * (1.0 if prefill else self.output_tokens)
        return WorkerSample(
            uid=pod,
            pod=pod,
            role=role,
            group=pod,
            at_s=now_s,
            running=10.0 * share,
            waiting=1.0,
            waiting_by_reason={"capacity": 0.0, "deferred": 1.0},
            kv_usage=0.4,
            prompt_tokens=done * self.prompt_tokens,
            generation_tokens=tokens,
            finished=done,
            ttft=WORKER_TTFT.of(done),
            itl=WORKER_ITL.of(tokens),
            engine="vllm",
            ranks=("engine=0",),
            in_flight=11.0 * share,
            prompts=done,
            kv_usage_max=0.5,
            preemptions=0.0,
            ready_s=CREATED_S,
        )

    def _fleet(self, role: Role) -> RoleFleet:
        groups = self.groups[role]
        pods = [tuple(f"{role}-{index}{rank}" for rank in ("", "-1")) for index in range(groups)]
        return RoleFleet(
            kind="LeaderWorkerSet",
            namespace=NAMESPACE,
            name=role.value,
            uid=f"uid-{role}",
            created_s=CREATED_S,
            replicas=groups,
            ready=groups,
            present=groups,
            pods_per_group=PODS_PER_GROUP,
            gpus_per_group=PODS_PER_GROUP,
            fit=MOST_GROUPS,
            pod_group=role.value,
            min_pods=self.floors[role] * PODS_PER_GROUP,
            ready_after_s=(COLD_START_S,) * groups,
            groups=tuple(Group(names[0], names) for names in pods),
            owner="us",
        )


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of a fleet's ticks; the claims are those of the largest fleet."""
    rounds = {services: _apart(services, sizes) for services in sizes.services}
    most = max(rounds)
    figures: list[Figure] = []
    for services, (spent_ms, rss_mb) in rounds.items():
        title = f"{services:,} services x 2 roles"
        time, memory = ({"median": LIMIT_MS}, {"max": LIMIT_MB}) if services == most else ({}, {})
        figures.append(figure(f"{title}: one round of ticks", "ms", spent_ms, **time))
        figures.append(figure(f"{title}: RSS", "MB", [rss_mb], **memory))
    spent_ms, rss_mb = _apart(most, replace(sizes, learning=True))
    title = f"{most:,} services x 2 roles, with learned forecasts"
    figures.append(figure(f"{title}: one round of ticks", "ms", spent_ms, median=LIMIT_MS))
    figures.append(figure(f"{title}: RSS", "MB", [rss_mb], max=LIMIT_LEARNING_MB))
    each_ms = {services: sorted(spent_ms)[len(spent_ms) // 2] / services for services, (spent_ms, _) in rounds.items()}
    bend = each_ms[most] / each_ms[min(rounds)]
    return [*figures, figure(f"time of a service among {most:,} / {min(rounds):,}", "x", [bend], max=LIMIT_BEND)]


def _apart(services: int, sizes: Sizes) -> tuple[list[float], float]:
    """Milliseconds of each round of one fleet, and the RSS in MB, in a process of its own."""
    numbers = map(str, (services, sizes.rounds, sizes.history_s, sizes.lives))
    command = [sys.executable, "-m", "benchmarks.fleet_ticks", *numbers, *(["--learning"] if sizes.learning else [])]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
        raise BenchmarkError(f"{services} services: {last[0]}")
    found = json.loads(done.stdout)
    return found["round_ms"], found["rss_mb"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one fleet in this process, and print it as JSON; the exit code."""
    parser = Parser(
        prog="python -m benchmarks.fleet_ticks",
        description="Tick one fleet, in this process, as `python -m benchmarks fleet_ticks` does for each size.",
        epilog="example: python -m benchmarks.fleet_ticks 1000 10 1200 20",
    )
    parser.add_argument("services", type=int, help="how many")
    parser.add_argument("rounds", type=int, help="how many rounds are timed")
    parser.add_argument("history_s", type=float, help="seconds of history before them")
    parser.add_argument("lives", type=int, help="how many different services")
    parser.add_argument("--learning", action="store_true", help="with learned forecasts beside the ticks")
    chosen = parser.parse_args(argv)
    try:
        sizes = Sizes((chosen.services,), chosen.rounds, chosen.history_s, chosen.lives, chosen.learning)
        fleet = Services(sizes)
        spent_ms = [fleet.round() for _ in range(chosen.rounds + 1)][1:]
    except BenchmarkError as error:
        print(f"fleet_ticks: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"round_ms": spent_ms, "rss_mb": psutil.Process().memory_info().rss / 1e6}))
    return 0


class Services:
    """A fleet with its history behind it. Raises BenchmarkError where it does not come to decisions."""

    def __init__(self, sizes: Sizes) -> None:
        count = sizes.services[0]
        self._rng, self._profile = random.Random(1), load_profile(DEFAULT_PROFILE)
        self._settings = [_settings(f"chat-{index}") for index in range(count)]
        self._period_s = self._settings[0].spec.sync_period_s
        chosen = self._settings[: sizes.lives]
        lives = [Life.born(self._rng, Learned(one) if sizes.learning else None) for one in chosen]
        self.now_s = CREATED_S + 600.0
        for _ in range(int(sizes.history_s / self._period_s)):
            self.now_s += self._period_s
            for life in lives:
                life.flow(self.now_s, self._period_s, self._rng)
                life.follow(life.tick(life.seen(self.now_s), self._settings[0], self._profile).step)
        stored = [pickle.dumps(life) for life in lives]
        self.lives: list[Life] = [pickle.loads(stored[index % len(stored)]) for index in range(count)]

    def round(self) -> float:
        """One tick of every service; milliseconds of the processor."""
        self.now_s += self._period_s
        spent_s, unsized = 0.0, 0
        for life, settings in zip(self.lives, self._settings, strict=True):
            life.flow(self.now_s, self._period_s, self._rng)
            observation = life.seen(self.now_s)
            began_s = time.process_time()
            decision = life.tick(observation, settings, self._profile)
            spent_s += time.process_time() - began_s
            life.follow(decision.step)
            unsized += decision.target is None or bool(decision.target.unsized)
        if unsized:
            raise BenchmarkError(f"{unsized} of {len(self.lives)} services have no size in the end")
        return spent_s * 1e3


def _settings(name: str) -> Settings:
    role = {"minGroups": 1, "maxGroups": MOST_GROUPS, "coldStartS": COLD_START_S}
    spec = {
        "service": name,
        "mode": "Active",
        "profile": DEFAULT_PROFILE,
        "gpuBudget": 4 * MOST_GROUPS,
        "slo": {"ttft": {"percentile": 95, "targetMs": 2000}, "itl": {"percentile": 95, "targetMs": 60}},
        "prefill": role,
        "decode": role,
    }
    return parse_settings({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}, "benchmark")


if __name__ == "__main__":
    sys.exit(main())
