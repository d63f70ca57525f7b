"""Recording rules over all engines: by promtool on what goes wrong over time, and by a real Prometheus on the corpus.

The corpus is written into a Prometheus as it would have scraped it over ten minutes, with every counter growing by a
known amount: what the rules' queries say must be what the aggregator says of the last page, or of two pages.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import pytest
import pytest_asyncio
import yaml

from autoscaler.adapters import promql
from autoscaler.adapters.pages import FAMILIES, Page, PageError, Sample, page_of, read_page
from autoscaler.adapters.pages.family import Counter, Times
from autoscaler.adapters.pages.text import parse
from autoscaler.core import histogram
from autoscaler.model import Histogram
from dashboards.engines import TARGET, rules, text
from policies.model import Missing
from tests.dashboards.queries import Asked, running
from tests.shared_data import shared

MINUTES = 10
GROWTH = 0.5
"""How much of a counter is added in each minute."""
MEASURED = [*(("engine", latency) for latency in get_args(promql.Latency)), ("front", "ttft"), ("front", "itl")]
PLACE = 'namespace="team-a",roleratio_service="chat",roleratio_role="decode"'
AT_S = 60 * MINUTES
ENDS = ("_bucket", "_sum", "_count")

Stored = tuple[Asked, int]
Wanted = list[tuple[str, float]]
"""Labels and values."""


def test_the_file_is_what_the_tables_say() -> None:
    assert TARGET.read_text(encoding="utf-8") == text(), "run `make dashboards`"


def test_promtool_finds_no_fault(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", str(TARGET)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(list(rules()))} rules found" in done.stdout


@cache
def names() -> frozenset[str]:
    """Names that count."""
    sources = [one for family in FAMILIES for each in family.signals.values() for one in each]
    counters = {name for one in sources if isinstance(one, Counter) for name in one.names}
    times = {name + end for one in sources if isinstance(one, Times) for name in one.names for end in ENDS}
    return frozenset(counters | times)


def samples(body: str, minute: int) -> list[Sample]:
    """The series of a page some minutes later: what counts has grown, what is a state has not."""
    found: list[Sample] = []
    for name, series in parse(body).series.items():
        grown = 1 + GROWTH * minute if name in names() else 1
        found += [(name, dict(labels), value * grown) for labels, value in series.items()]
    return found


@cache
def pages() -> dict[str, tuple[Page, Page, str]]:
    """The corpus by name: at the beginning, at the end, and as text."""
    found = {}
    for file in sorted(shared("data/metrics").glob("*.prom")):
        body = file.read_text(encoding="utf-8")
        try:
            read_page(body)
        except PageError:
            continue
        found[file.stem] = page_of(samples(body, 0)), page_of(samples(body, MINUTES)), body
    return found


def open_metrics(start_s: int) -> str:
    """All pages as series of pods, one sample a minute. What a scrape would rename is renamed."""
    lines = []
    for name, (_, _, body) in pages().items():
        place = {"namespace": "team-a", "pod": name, "job": "pods", "instance": f"{name}:8000", "endpoint": "http"}
        for minute in range(MINUTES + 1):
            for series, labels, value in samples(body, minute):
                own = {f"exported_{key}" if key in place else key: said for key, said in labels.items()}
                inside = ",".join(f"{key}={quoted(said)}" for key, said in {**own, **place}.items())
                lines.append(f"{series}{{{inside}}} {said_as(value)} {start_s + 60 * minute}")
    return "\n".join((*lines, "# EOF")) + "\n"


def quoted(value: str) -> str:
    return '"' + value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'


def said_as(value: float) -> str:
    return repr(value) if math.isfinite(value) else {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stored(prometheus: str, promtool: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stored]:
    """A Prometheus that has stored the corpus, and when the last page was scraped."""
    folder = tmp_path_factory.mktemp("prometheus")
    start_s = int(time.time()) - 3600
    (folder / "pages.om").write_text(open_metrics(start_s), encoding="utf-8")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "pages.om"), str(folder / "data")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    async with running(prometheus, folder, {"scrape_configs": []}, folder / "data") as found:
        yield found, start_s + AT_S


async def by_pod(stored: Stored, query: str) -> dict[str, float]:
    asked, at_s = stored
    data = await asked.get("query", query=query, time=str(at_s))
    found = {one["metric"]["pod"]: float(one["value"][1]) for one in data["result"]}
    assert len(found) == len(data["result"]), query
    return found


def fronts(of: str) -> dict[str, tuple[Page, Page]]:
    """The pages of engines, or of what stands before them."""
    kinds = ("engine",) if of == "engine" else ("router", "gateway", "frontend")
    return {name: (first, last) for name, (first, last, _) in pages().items() if last.kind in kinds}


def states(page: Page) -> dict[str, Any]:
    """What an engine's page says of now, as the rules put it: the mean over engines is not weighted."""
    said = page.totals
    split = said.waiting_by_reason
    waiting = said.waiting
    if not isinstance(split, Missing) and not isinstance(waiting, Missing):
        waiting -= split.get("deferred", 0.0)
    each = [unit.signals.kv_usage for unit in page.units]
    usages = [value for value in each if not isinstance(value, Missing)]
    mean = fmean(usages) if usages and len(usages) == len(each) else said.kv_usage
    return {"running": said.running, "waiting": waiting, "kv_usage": mean, "kv_usage_max": said.kv_usage_max}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("signal", ["running", "waiting", "kv_usage", "kv_usage_max"])
async def test_states_are_those_of_the_pages(stored: Stored, signal: str) -> None:
    found = await by_pod(stored, promql.state(signal))  # type: ignore[arg-type]
    wanted = {name: states(last)[signal] for name, (_, last) in fronts("engine").items()}
    assert found == pytest.approx({name: value for name, value in wanted.items() if not isinstance(value, Missing)})


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("of", get_args(promql.Of))
@pytest.mark.parametrize("count", get_args(promql.Count))
async def test_rates_are_the_differences_of_two_pages(stored: Stored, of: promql.Of, count: promql.Count) -> None:
    found = await by_pod(stored, promql.rate(count, of, f"{MINUTES}m"))
    wanted = {}
    for name, (first, last) in fronts(of).items():
        before, after = getattr(first.totals, count), getattr(last.totals, count)
        if not isinstance(after, Missing):
            wanted[name] = (after - before) / AT_S
    assert found == pytest.approx(wanted)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("of", "latency"), MEASURED)
async def test_latencies_are_those_of_two_pages(stored: Stored, of: promql.Of, latency: promql.Latency) -> None:
    window = f"{MINUTES}m"
    increases: dict[str, Histogram] = {}
    for name, (first, last) in fronts(of).items():
        before, after = getattr(first.totals, latency), getattr(last.totals, latency)
        if not isinstance(after, Missing) and isinstance(after.buckets, Histogram) and after.count > 0:
            increases[name] = histogram.increase(before.buckets, after.buckets)  # type: ignore[assignment]
    assert increases
    found = await by_pod(stored, promql.quantile(0.95, promql.buckets(latency, of, window), promql.BY))
    wanted = {name: histogram.percentile_s(one, 95) for name, one in increases.items()}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)

    for target_s in {one.bounds_s[len(one.bounds_s) // 2] for one in increases.values()}:
        query = promql.share_within(target_s, lambda le: promql.buckets(latency, of, window, le), promql.BY)
        shares = await by_pod(stored, query)
        for name, one in increases.items():
            if target_s in one.bounds_s:
                assert shares[name] == pytest.approx(histogram.share_within(one, target_s)), (name, target_s)


def check(promtool: str, folder: Path, series: Mapping[str, str], wanted: Mapping[str, Wanted]) -> None:
    """Let promtool evaluate the rules over series, and compare records."""
    expected = [
        {
            "expr": record,
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in found],
        }
        for record, found in wanted.items()
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    case = {"interval": "1m", "input_series": inputs, "promql_expr_test": expected}
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(TARGET)], "evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def of(pod: str, **labels: str) -> str:
    """The labels of a series of a pod."""
    more = "".join(f',{key}="{value}"' for key, value in {"job": "a", "instance": f"{pod}:8000", **labels}.items())
    return f'{{{PLACE},pod="{pod}"{more}}}'


RUNNING, TOKENS = "vllm:num_requests_running", "vllm:generation_tokens_total"
ROLE = f"{{{PLACE}}}"
# case -> (series, records)
CASES: dict[str, tuple[dict[str, str], dict[str, Wanted]]] = {
    "a counter is reset": (
        {f"{TOKENS}{of('d-0')}": "600+60x4 0+60x10"},
        {"role:llm_engine_generation_tokens:rate5m": [("", 1.0)]},
    ),
    "engines of a pod add up": (
        {
            f"{RUNNING}{of('d-0', engine='0')}": "64x20",
            f"{RUNNING}{of('d-0', engine='1')}": "2x20",
            f"vllm:kv_cache_usage_perc{of('d-0', engine='0')}": "0.98x20",
            f"vllm:kv_cache_usage_perc{of('d-0', engine='1')}": "0.02x20",
        },
        {
            "role:llm_engine_running_requests:sum": [("", 66)],
            "role:llm_engine_kv_usage_ratio:mean": [("", 0.5)],
            "role:llm_engine_kv_usage_ratio:max": [("", 0.98)],
        },
    ),
    "ranks do not add up": (
        {
            f"sglang:num_running_reqs{of('d-0', tp_rank=f'{rank}', dp_rank=f'{rank // 2}', pp_rank='0')}": "7x20"
            for rank in range(4)
        },
        {"role:llm_engine_running_requests:sum": [("", 14)]},
    ),
    "two monitors and two replicas count once": (
        {
            f"{name}{of('d-0', engine=engine, **labels)}": values
            for labels in (
                {"job": "a"},
                {"job": "b"},
                {"job": "a", "prometheus_replica": "1"},
                {"job": "a", "replica": "r"},
            )
            for engine in ("0", "1")
            for name, values in ((RUNNING, "3x20"), (TOKENS, "0+60x20"))
        },
        {
            "role:llm_engine_running_requests:sum": [("", 6)],
            "role:llm_engine_generation_tokens:rate5m": [("", 2.0)],
        },
    ),
    "what is deferred does not wait": (
        {
            f"vllm:num_requests_waiting{of('d-0')}": "6x20",
            f"vllm:num_requests_waiting_by_reason{of('d-0', reason='deferred')}": "4x20",
            f"vllm:num_requests_waiting_by_reason{of('d-0', reason='capacity')}": "2x20",
            f"vllm:num_requests_waiting{of('d-1')}": "5x20",
        },
        {"role:llm_engine_waiting_requests:sum": [("", 7)]},
    ),
    "a total of priorities counts alone": (
        {
            f"sglang:num_queue_reqs{of('d-0', priority='')}": "5x20",
            f"sglang:num_queue_reqs{of('d-0', priority='1')}": "5x20",
        },
        {"role:llm_engine_waiting_requests:sum": [("", 5)]},
    ),
    "old and new names are one thing": (
        {
            f"vllm:gpu_cache_usage_perc{of('d-0')}": "0.2x20",
            f"vllm:kv_cache_usage_perc{of('d-0')}": "0.4x20",
            f"vllm:gpu_cache_usage_perc{of('d-1')}": "0.6x20",
        },
        {"role:llm_engine_kv_usage_ratio:mean": [("", 0.5)]},
    ),
    "a sentinel and a unit error say nothing": (
        {f"vllm:kv_cache_usage_perc{of('d-0')}": "-1x20", f"vllm:kv_cache_usage_perc{of('d-1')}": "1.53x20"},
        {"role:llm_engine_kv_usage_ratio:mean": []},
    ),
    "a router that shows its engines is none": (
        {
            f"{RUNNING}{of('r-0', server='http://10.0.0.1:8000')}": "10x20",
            f"vllm:current_qps{of('r-1')}": "1x20",
            f"{RUNNING}{of('r-1')}": "10x20",
            f"{RUNNING}{of('d-0')}": "4x20",
        },
        {"role:llm_engine_running_requests:sum": [("", 4)]},
    ),
}
TTFT = "vllm:time_to_first_token_seconds_bucket"
SPELLINGS = {"as 1": ("1", "1"), "as 1.0": ("1.0", "1.0"), "first as 1, then as 1.0": ("1", "1.0")}


@pytest.mark.parametrize("case", CASES)
def test_rules_over_time(promtool: str, tmp_path: Path, case: str) -> None:
    series, wanted = CASES[case]
    named = {record: [(f"{record}{ROLE}", value) for _, value in found] for record, found in wanted.items()}
    check(promtool, tmp_path, series, named)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_bound_in_both_spellings_is_one(promtool: str, tmp_path: Path, spelling: str) -> None:
    old, new = SPELLINGS[spelling]
    series = {f"{TTFT}{of('d-0', le=le)}": "0+100x20" for le in ("2.5", "+Inf")}
    if old == new:
        series[f"{TTFT}{of('d-0', le=old)}"] = "0+95x20"
    else:
        series[f"{TTFT}{of('d-0', le=old)}"] = "0+95x7 stale _x12"
        series[f"{TTFT}{of('d-0', le=new)}"] = "_x8 760+95x12"
    share, high = "role:llm_engine_ttft_within_2000ms:ratio_rate5m", "role:llm_engine_ttft_seconds:p95_5m"
    rounded = {f"round({record}, 0.0001)": [(ROLE, value)] for record, value in ((share, 0.95), (high, 1.0))}
    check(promtool, tmp_path, series, rounded)
