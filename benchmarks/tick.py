"""One controller tick for one service, without the network: the core, and all that a driver does around it.

How: a service with 8 + 8 TP groups on a cluster that runs nothing else, in steady state: the history is full (more
than `HISTORY_S` of ticks went before), nothing is left to change. Each tick reads the metrics pages as the real
router and workers write them, looks at the raw objects, decides, and writes the journal line; the parts are timed one
by one. For information: the same look in a cluster of `large_nodes` nodes and `large_pods` pods.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from autoscaler.adapters.fleet import World, look
from autoscaler.adapters.join import Joiner, Read, ScrapeTarget
from autoscaler.adapters.journal import JournalWriter
from autoscaler.adapters.pages import read_page
from autoscaler.core import tick
from autoscaler.core.flows import HISTORY_S
from autoscaler.model import Observation, Samples, State
from autoscaler.settings import Settings, parse_settings
from benchmarks.figure import Figure, figure
from benchmarks.objects import CREATED_S, nodes, running_world
from benchmarks.processes import BenchmarkError
from benchmarks.stopwatch import repeat, timed
from kubeapi import names
from perfmodel.profile import load_profile
from roleratio.demo import manifests
from roleratio.demo.plan import GPU_BUDGET, GPUS_PER_NODE, NODES
from roleratio.workload import CALM
from serving.flight import OK, RouterMetrics
from serving.metrics import WorkerMetrics, page

LIMIT_MS = 5
GROUPS = 8
LARGE_GPUS_PER_NODE = 8
PARTS = ("look", "read", "tick", "journal")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many ticks after how long a history, and how large the other cluster is."""

    ticks: int = 300
    history_s: float = HISTORY_S
    looks: int = 20
    large_nodes: int = 500
    large_pods: int = 2000


DEFAULT = Sizes()


@dataclass(slots=True)
class Pages:
    """The metrics of a service under a steady load, counted by the code that counts in router and workers."""

    rate_rps: float
    router: RouterMetrics = field(default_factory=lambda: RouterMetrics(f"{manifests.NAMESPACE}/{manifests.SERVICE}"))
    workers: dict[str, WorkerMetrics] = field(default_factory=dict)

    def flow(self, seconds: float) -> None:
        """Let some time pass."""
        requests = round(self.rate_rps * seconds)
        tokens = round(requests * CALM.outputs.mean)
        self.router.requests += requests
        self.router.prompt_tokens += round(requests * CALM.inputs.mean)
        self.router.generation_tokens += tokens
        self.router.finished[OK] += requests
        self.router.ttft.observe(0.4, requests)
        self.router.itl.observe(0.03, tokens)
        for worker in self.workers.values():
            worker.prompt_tokens += round(requests * CALM.inputs.mean / GROUPS)
            worker.generation_tokens += tokens // GROUPS
            worker.finished["length"] += requests // GROUPS
            worker.ttft.observe(0.3, requests)
            worker.itl.observe(0.03, tokens)

    def text(self, target: ScrapeTarget) -> str:
        """What a target's `/metrics` says."""
        if target.role == names.ROLE_ROUTER:
            return page(self.router.families()).decode()
        worker = self.workers.setdefault(target.uid, WorkerMetrics(manifests.MODEL))
        families = worker.families(running=8, capacity=0, deferred=1, kv_usage=0.4, blocks=19240, block_tokens=16)
        return page(families).decode()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of a tick."""
    world = running_world(nodes(NODES, GPUS_PER_NODE), GPUS_PER_NODE, [manifests.NAMESPACE], GROUPS)
    parts_ms = _ticks(world, _settings(), sizes)
    large_ms = _large_looks(sizes)
    whole_ms = [sum(parts) for parts in zip(*parts_ms.values(), strict=True)]
    title = f"{GROUPS} + {GROUPS} groups"
    size = f"{sizes.large_nodes} nodes, {sizes.large_pods} pods"
    return [
        figure(f"{title}: core.tick", "ms", parts_ms["tick"], median=LIMIT_MS, p99=LIMIT_MS),
        figure(f"{title}: look at {len(world.pods)} pods, {NODES} nodes", "ms", parts_ms["look"]),
        figure(f"{title}: read {2 * GROUPS + 1} metrics pages", "ms", parts_ms["read"]),
        figure(f"{title}: write the journal line", "ms", parts_ms["journal"]),
        figure(f"{title}: all of it", "ms", whole_ms),
        figure(f"{title}: look at {size}", "ms", large_ms),
    ]


def _settings() -> Settings:
    """The demo's settings, held at the size that is measured."""
    raw = manifests.settings(manifests.Shape(GROUPS, GROUPS), GPU_BUDGET)
    for role in (names.ROLE_PREFILL, names.ROLE_DECODE):
        raw["spec"][role] |= {"minGroups": GROUPS, "maxGroups": GROUPS}
    return parse_settings(raw, "benchmark")


def _ticks(world: World, settings: Settings, sizes: Sizes) -> dict[str, list[float]]:
    """Milliseconds of each part of each tick, after a warm-up that fills the history."""
    profile, period_s = load_profile(settings.spec.profile), settings.spec.sync_period_s
    namespace, service = settings.metadata.namespace, settings.spec.service
    pages = Pages(rate_rps=CALM.rate_rps * GROUPS)
    state = State()
    warm_up = int(sizes.history_s / period_s) + 10
    spent_ms: dict[str, list[float]] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory(prefix="roleratio-benchmark-") as folder:
        journal = JournalWriter(Path(folder) / "journal")
        for index in range(warm_up + sizes.ticks):
            now_s = CREATED_S + 60 + index * period_s
            pages.flow(period_s)
            with timed(spent_ms["look"]):
                seen = look(world, namespace, service, now_s)
            texts = {target: pages.text(target) for target in seen.targets}
            with timed(spent_ms["read"]):
                samples = _read(texts, now_s, f"{namespace}/{service}")
            observation = Observation(now_s, samples, seen.fleet)
            with timed(spent_ms["tick"]):
                decision = tick(state, observation, settings, profile)
            with timed(spent_ms["journal"]):
                journal.append(state, observation, settings, profile, decision)
            state = decision.state
        journal.close()
    if decision.step is not None or decision.target is None or len(state.demands) < sizes.history_s / period_s:
        raise BenchmarkError(f"not a steady state: target {decision.target}, step {decision.step}")
    return {part: each_ms[warm_up:] for part, each_ms in spent_ms.items()}


def _read(texts: dict[ScrapeTarget, str], now_s: float, service: str) -> Samples:
    """What the scraper does with the pages that it has got."""
    readings = {target: Read(read_page(text), now_s) for target, text in texts.items()}
    return Joiner().samples(readings, service)


def _large_looks(sizes: Sizes) -> list[float]:
    """Milliseconds of a look at one of many services."""
    pods_per_service = 2 * GROUPS * manifests.PODS_PER_GROUP + 1
    namespaces = [f"team-{index}" for index in range(-(-sizes.large_pods // pods_per_service))]
    world = running_world(nodes(sizes.large_nodes, LARGE_GPUS_PER_NODE), LARGE_GPUS_PER_NODE, namespaces, GROUPS)
    return repeat(lambda: look(world, namespaces[0], manifests.SERVICE, CREATED_S + 60), sizes.looks)[1]
