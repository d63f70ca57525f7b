"""The streaming benchmark's client process: roleratio's own load client, and the CPU that it spends.

`python -m benchmarks.load_client SPEC RESULT`: SPEC is a JSON file {url, model, arrivals: [[at_s, in, out], ...]};
RESULT is written when every request has ended. CPU is counted from the first request on, so imports are not in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

from benchmarks.processes import cpu_s, rss_mb
from roleratio import load
from roleratio.traces import Arrival

FINISH_S = 60.0


def main(spec_file: str, result_file: str) -> None:
    """Send all requests and write what came of them."""
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    arrivals = [Arrival(*row) for row in spec["arrivals"]]
    run = load.LoadRun()
    before_s = cpu_s(os.getpid())
    asyncio.run(load.run(arrivals, spec["url"], spec["model"], seed=0, finish_s=FINISH_S, load=run))
    result = {
        "cpu_s": cpu_s(os.getpid()) - before_s,
        "rss_mb": rss_mb(os.getpid()),
        "outcomes": Counter(record.outcome.value for record in run.records),
        "tokens": sum(record.tokens for record in run.records),
        "span_s": max(record.end_s or 0.0 for record in run.records),
    }
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
