"""What a run was worth, from the simulator's own records: attainment, GPU-hours, and the cause of every miss; pure.

Causes, the first that holds:
`unfinished`    no last token when the run ended
`prompt`        its prefill takes longer than the TTFT target once begun: long, or in a pass with others
`first_start`   it came before any group that was asked for at the first report could have started
`cold_start`    groups of the role that it waited for, or whose batch was too large, were starting when it came
`burst`         it waited for prefill, and nothing was on its way
`decode_room`   it waited for room in decode, and nothing was on its way
`decode_batch`  its mean ITL was too long, and nothing was on its way
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
Starting = Mapping[str, Sequence[tuple[float, int]]]
"""By role: (from when in ms, how many groups are starting)."""


def scored(job: Mapping[str, Any], summary: Record, records: Sequence[Record], operations: Sequence[Record]) -> Record:
    """The result of a run of which `records` are the finished requests. Linear in them.

    `goodput` is the simulator's own count of requests within the SLO, as a share of those asked: `attained` again.
    """
    facts, asked = job["facts"], int(job["requests"])
    starting = _starting(operations)
    causes: Counter[str] = Counter()
    for record in records:
        if cause := _cause(record, facts, starting):
            causes[cause] += 1
    causes["unfinished"] += asked - len(records)
    missed = sum(causes.values())
    return {
        "requests": asked,
        "attained": round(1 - missed / asked, 5),
        "goodput": round(summary["goodput_completed_requests"] / asked, 5),
        "gpu_hours": round(summary["gpu_hours"], 4),
        "prefill_group_hours": round(summary["prefill_worker_seconds"] / 3600, 4),
        "decode_group_hours": round(summary["decode_worker_seconds"] / 3600, 4),
        "duration_s": round(summary["duration_ms"] / 1e3, 1),
        "missed": {cause: round(count / asked, 5) for cause, count in sorted(causes.items()) if count},
        **{f"{name}_{at}": summary.get(f"{at}_{name}") for name in ("ttft_ms", "itl_ms") for at in ("median", "p95")},
    }


def attains(record: Record, ttft_ms: float, itl_ms: float) -> bool:
    """Whether a finished request met both targets; one of a single token has no ITL."""
    if record["terminal_status"] != "completed" or record["ttft_ms"] is None:
        return False
    return bool(record["ttft_ms"] <= ttft_ms and (record["itl_ms"] is None or record["itl_ms"] <= itl_ms))


def _cause(record: Record, facts: Mapping[str, Any], starting: Starting) -> str:
    """Why a request missed; nothing if it did not."""
    if attains(record, facts["ttft_ms"], facts["itl_ms"]):
        return ""
    if record["terminal_status"] != "completed" or record["ttft_ms"] is None:
        return "unfinished"
    came_ms = record["arrival_time_ms"]
    queued_ms = _between(record, "arrival_time_ms", "prefill_admit_ms")
    computed_ms = _between(record, "prefill_admit_ms", "source_held_ms")
    room_ms = _between(record, "source_held_ms", "decode_admit_ms")
    if computed_ms > facts["ttft_ms"]:
        return "prompt"
    if came_ms <= 1e3 * facts["startup_s"] + FIRST_REPORT_MS:
        return "first_start"
    in_time = record["ttft_ms"] <= facts["ttft_ms"]
    role = "decode" if in_time or room_ms > queued_ms + computed_ms else "prefill"
    if _count(starting.get(role, ()), came_ms):
        return "cold_start"
    return "decode_batch" if in_time else "decode_room" if role == "decode" else "burst"


FIRST_REPORT_MS = 5000.0


def _between(record: Record, start: str, end: str) -> float:
    """Milliseconds between two stamps; 0 where the simulator gave one of them not."""
    first, last = record[start], record[end]
    return 0.0 if first is None or last is None else float(last - first)


def _starting(operations: Sequence[Record]) -> Starting:
    """How many groups were starting, from when on."""
    found: dict[str, list[tuple[float, int]]] = {}
    for one in operations:
        found.setdefault(one["pool"], []).append((one["at_ms"], len(one["state_after_batch"]["starting"])))
    return found


def _count(series: Sequence[tuple[float, int]], at_ms: float) -> int:
    index = bisect_right(series, at_ms, key=lambda entry: entry[0])
    return series[index - 1][1] if index else 0
