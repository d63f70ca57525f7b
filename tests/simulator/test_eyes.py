"""What a policy sees is what our readers and our scheduler say: the short way gives the same as the long one."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as some

from autoscaler.adapters.join import Joiner, Read, ScrapeTarget, page_for
from autoscaler.adapters.pages import NAMES
from autoscaler.adapters.pages.text import parse
from autoscaler.model import Observation
from gangscheduler.place import how_many_fit
from policies.model import ROLES, Pair, Role
from serving.flight import ABORTED, FAILED, OK, REJECTED, RouterMetrics
from serving.metrics import page
from simulator.cluster import FIT_LIMIT, NAMESPACE
from simulator.gauges import FINE_BOUNDS_S, Histogram, Snapshot
from simulator.groups import Group, Phase
from simulator.pages import MODEL, ROUTER, router_sample, worker_sample
from simulator.port import Wanted
from simulator.world import World
from tests.simulator.small import run, scenario, world
from tests.simulator.test_world import Script

LABELS = f'model_name="{MODEL}",engine="0"'


def written(group: Group, said: Snapshot) -> str:
    """The page of a vLLM that says this."""
    config = group.engine.engine.config
    lines = []
    for name, value in said.values.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [
            f"# TYPE {name.removesuffix('_total') if kind == 'counter' else name} {kind}",
            f"{name}{{{LABELS}}} {value!r}",
        ]
    by_reason = "vllm:num_requests_waiting_by_reason"
    lines.append(f"# TYPE {by_reason} gauge")
    lines += [f'{by_reason}{{{LABELS},reason="{reason}"}} {count}' for reason, count in said.waiting_by_reason.items()]
    lines.append("# TYPE vllm:cache_config_info gauge")
    info = f'block_size="{config.block_tokens}",num_gpu_blocks="{config.kv_blocks}"'
    lines.append(f"vllm:cache_config_info{{{LABELS},{info}}} 1")
    for name, histogram in said.histograms.items():
        lines += _histogram(name, histogram)
    return "\n".join(lines) + "\n"


def _histogram(name: str, histogram: Histogram) -> list[str]:
    bounds = [*map(repr, map(float, histogram.bounds_s)), "+Inf"]
    counts = list(accumulate(histogram.counts))
    rows = [f'{name}_bucket{{{LABELS},le="{le}"}} {count}' for le, count in zip(bounds, counts, strict=True)]
    return [
        f"# TYPE {name} histogram",
        *rows,
        f"{name}_count{{{LABELS}}} {counts[-1]}",
        f"{name}_sum{{{LABELS}}} {histogram.sum_s!r}",
    ]


def stopped(at_s: float) -> World:
    """A world in the middle of its work."""
    here = world(scenario(fleet__prefill__groups=2, durationS=at_s, tailS=0), "static")
    here.run()
    return here


def test_a_worker_sample_is_what_the_reader_makes_of_its_page() -> None:
    here = stopped(20.0)
    for workload in here.workloads.values():
        for group in workload.groups.values():
            said = group.engine.snapshot()
            target = ScrapeTarget(
                group.leader,
                group.uid,
                group.role.value,
                group=group.uid,
                start_s=group.created_s,
                ready_s=group.ready_s,
            )
            read = page_for(parse(written(group, said), NAMES, "text/plain"), None)
            samples = Joiner().samples({target: Read(read, 20.0)}, "simulated/simulated")
            assert samples.failures == {}
            short = worker_sample(group, said, 20.0)
            assert samples.workers == (short,)
            assert short.finished != 0
            assert samples.models == {MODEL: 1}


def test_a_router_sample_is_what_the_reader_makes_of_our_router_s_page() -> None:
    here = stopped(20.0)
    counted, router = here.router.counters, RouterMetrics(f"{NAMESPACE}/simulated")
    router.requests, router.prompt_tokens = counted.arrivals, counted.prompt_tokens
    router.finished |= {OK: counted.finished, FAILED: counted.failed, REJECTED: 0, ABORTED: 0}
    decode = [group.engine.snapshot() for group in here.workloads[Role.DECODE].groups.values()]
    passed = here.eyes.passed.plus(decode)
    router.generation_tokens = int(passed.tokens)
    router.ttft._counts, router.ttft.sum_s = list(counted.ttft.counts), counted.ttft.sum_s
    target = ScrapeTarget(ROUTER, ROUTER, "router")
    read = page_for(parse(page(router.families()).decode(), NAMES, "text/plain"), None)
    (long,) = Joiner().samples({target: Read(read, 20.0)}, f"{NAMESPACE}/simulated").routers
    short = router_sample(counted, passed, 20.0, 0.0)
    assert tuple(router.ttft.bounds_s) == FINE_BOUNDS_S
    for name in ("uid", "pod", "arrivals", "prompt_tokens", "generation_tokens", "finished", "failed", "ttft"):
        assert getattr(short, name) == getattr(long, name), name
    for name in ("prompts", "tokens_at", "engine", "series", "start_s", "ready_s"):
        assert getattr(short, name) == getattr(long, name), name
    assert isinstance(long.in_flight, dict)
    assert isinstance(short.in_flight, dict)
    assert short.in_flight.keys() == long.in_flight.keys()


SIZES = some.tuples(some.integers(0, 6), some.integers(0, 6))


@settings(max_examples=20, deadline=None)
@given(some.lists(SIZES, min_size=1, max_size=4), some.integers(1, 4), some.integers(3, 8))
def test_what_fits_is_what_the_scheduler_says_now(sizes: list[tuple[int, int]], nodes: int, gpus: int) -> None:
    """The answers that are kept are those that would be given."""
    script = Script(*((5.0 * index, Pair(*pair)) for index, pair in enumerate(sizes, 1)))

    def watch(here: World, seen: Observation, wanted: Wanted) -> None:
        for role in ROLES:
            shape = here.cluster.shapes[role].template
            fresh = how_many_fit(here.cluster.snapshot(), shape, FIT_LIMIT, podgroup=f"{NAMESPACE}/{role}")
            assert here.cluster.fit(role) == fresh

    run(scenario(durationS=40, fleet__nodes={"count": nodes, "gpus": gpus}), script, watch=watch)


def test_only_groups_that_are_ready_and_stay_have_a_page_that_counts() -> None:
    script = Script((5.0, Pair(1, 3)), (20.0, Pair(1, 1)))
    long = [(15.0 + index / 10, 100, 900) for index in range(6)]

    def watch(here: World, seen: Observation, wanted: Wanted) -> None:
        ready = {
            g.uid for workload in here.workloads.values() for g in workload.groups.values() if g.phase is Phase.READY
        }
        if not wanted.groups:
            assert {sample.group for sample in seen.samples.workers} == ready

    run(scenario(), script, requests=long, watch=watch)
    assert script.role(22.0, Role.DECODE).draining == 2
    tokens = [router.generation_tokens for seen in script.seen for router in seen.samples.routers]
    assert tokens == sorted(tokens, key=float)
