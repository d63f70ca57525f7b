"""Writes `engines.yaml`, recording rules over all engines, from the tables of pages: `python -m dashboards.engines`.

Rules:
1. Pure but for `main`: the same tables give the same text.
2. First what a pod says, then what a role says, from the records of its pods. A record ends in how it was made.
3. Unlike in `rules.yaml`, what a scrape says of a pod is what these group by: engines know no service of ours. The
   scrape has to add `namespace`, `pod`, `roleratio_service` and `roleratio_role`.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from autoscaler.adapters import promql
from autoscaler.adapters.promql import Count, Latency, Of, State
from autoscaler.settings import Slos

TARGET = Path(__file__).with_name("engines.yaml")
WINDOW = "5m"
PERCENTILE = 95
HEADER = """\
# Made by `python -m dashboards.engines` from the tables in autoscaler/adapters/pages; change those instead.
#
# What engines (vLLM, SGLang, TensorRT-LLM, Dynamo, ...) and what stands before them say under their own names, under
# one name each. `pod:` records are of single pods, `role:` records of a service's role.
"""

Rule = tuple[str, str]
"""Name and expression."""


def rules() -> Iterator[Rule]:
    """All records, in the order in which they build on each other."""
    for name in get_args(State):
        yield _state_name("pod", name), promql.state(name)
    for of in get_args(Of):
        for count in get_args(Count):
            yield _rate_name("pod", of, count), promql.rate(count, of, WINDOW)
        for latency in _latencies(of):
            yield _buckets_name(of, latency), promql.buckets(latency, of, WINDOW)
    yield from _of_roles()


def _of_roles() -> Iterator[Rule]:
    by = ", ".join(promql.SERVICE)
    for name, over in {"running": "sum", "waiting": "sum", "kv_usage": "avg", "kv_usage_max": "max"}.items():
        yield _state_name("role", name), f"{over} by ({by}) ({_state_name('pod', name)})"
    slo = {"ttft": Slos().ttft, "itl": Slos().itl}
    for of in get_args(Of):
        for count in get_args(Count):
            yield _rate_name("role", of, count), f"sum by ({by}) ({_rate_name('pod', of, count)})"
        for latency in _latencies(of):
            buckets = _buckets_name(of, latency)
            yield f"role:llm_{of}_{latency}_seconds:p{PERCENTILE}_{WINDOW}", promql.quantile(PERCENTILE / 100, buckets)
            if latency in slo:
                within = promql.share_within(slo[latency].target_ms / 1000, _chosen(buckets))
                yield f"role:llm_{of}_{latency}_within_{slo[latency].target_ms:g}ms:ratio_rate{WINDOW}", within


def _latencies(of: Of) -> tuple[Latency, ...]:
    every: tuple[Latency, ...] = get_args(Latency)
    return every if of == "engine" else ("ttft", "itl")


def _chosen(record: str) -> Callable[[str], str]:
    return lambda matcher: f"{record}{{{matcher}}}"


def _state_name(level: str, name: str) -> str:
    signal, how = {"kv_usage": ("kv_usage_ratio", "mean"), "kv_usage_max": ("kv_usage_ratio", "max")}.get(
        name, (f"{name}_requests", "sum")
    )
    return f"{level}:llm_engine_{signal}:{how}"


def _rate_name(level: str, of: Of, count: Count) -> str:
    return f"{level}:llm_{of}_{count.removesuffix('_total')}:rate{WINDOW}"


def _buckets_name(of: Of, latency: Latency) -> str:
    return f"pod:llm_{of}_{latency}_seconds_bucket:rate{WINDOW}"


def text() -> str:
    """The file's text."""
    lines = [HEADER + "groups:", "  - name: llm-engines", "    rules:"]
    for record, expression in rules():
        folded = textwrap.wrap(expression, 112, break_long_words=False, break_on_hyphens=False)
        lines += [f"      - record: {record}", "        expr: >-", *(f"          {line}" for line in folded)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the file."""
    argparse.ArgumentParser(prog="python -m dashboards.engines", description=f"Write {TARGET.name}.").parse_args()
    TARGET.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
