"""Demand that was measured as rates: how many requests a second, and how long, in one stretch of time after the other.

Rules:
1. What lies between two stretches is missing, not zero. A stretch whose rate is 0 is known to be quiet.
2. Requests are drawn: arrivals by a renewal process with each stretch's rate, lengths log-normal around its means.
   What happened within a stretch is lost.
3. Parsing is pure; `read` and `write` alone open files. A file begins at 0 s and has no holes: `joined` closes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from autoscaler.errors import UserError
from simulator.arrivals import Gap, LogNormal, Request, Window, renewals
from simulator.rng import Streams

HEADER = "start_s,end_s,requests_per_s,prompt_tokens_mean,output_tokens_mean"
LINE_STEPS = 60
"""A hole that is filled is filled in at most so many steps."""

Gaps = Literal["cut", "line"]
"""What becomes of missing time: it is left out, or filled in by a straight line between what was before and after."""


class Stretch(NamedTuple):
    """A stretch of time: its rate, and the mean tokens of its requests, which say nothing where the rate is 0."""

    start_s: float
    end_s: float
    requests_per_s: float
    prompt_tokens_mean: float
    output_tokens_mean: float

    @property
    def length_s(self) -> float:
        """How long it lasts."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Measured:
    """What a source says of a period: stretches in order, in Unix seconds, and why the rest is missing.

    `source` names it for people; `missing`: why -> seconds; `notes` are more to know of it.
    """

    source: str
    start_s: float
    end_s: float
    stretches: tuple[Stretch, ...]
    missing: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def known_s(self) -> float:
        """Seconds of which the demand is known."""
        return sum(one.length_s for one in self.stretches)

    @property
    def missing_share(self) -> float:
        """The share of the period of which nothing is known."""
        return max(0.0, 1 - self.known_s / (self.end_s - self.start_s))

    @property
    def requests(self) -> float:
        """Requests to expect of what is known."""
        return sum(one.length_s * one.requests_per_s for one in self.stretches)

    @property
    def means(self) -> tuple[float, float]:
        """Mean prompt and output tokens of a request; 0 of none."""
        weights = [(one.length_s * one.requests_per_s, one) for one in self.stretches if one.requests_per_s > 0]
        total = sum(weight for weight, _ in weights) or 1.0
        prompt = sum(weight * one.prompt_tokens_mean for weight, one in weights) / total
        return prompt, sum(weight * one.output_tokens_mean for weight, one in weights) / total


def joined(stretches: Sequence[Stretch], gaps: Gaps) -> list[Stretch]:
    """The stretches from 0 s on, without holes. Linear."""
    found: list[Stretch] = []
    for one in stretches:
        before = found[-1] if found else None
        shift_s = stretches[0].start_s
        if before is not None and gaps == "cut":
            shift_s = one.start_s - before.end_s
        moved = one._replace(start_s=one.start_s - shift_s, end_s=one.end_s - shift_s)
        if before is not None and moved.start_s - before.end_s > 1e-6:
            found += _line(before, moved)
        found.append(moved)
    return found


def moment(at_s: float) -> str:
    """A time in UTC for people, to the minute."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M}"


def _line(before: Stretch, after: Stretch) -> Iterator[Stretch]:
    """Steps from one stretch to the next one; lengths are those of the side that has requests."""
    first, last = (before, after) if before.requests_per_s else (after, after)
    if not last.requests_per_s:
        last = first
    hole_s = after.start_s - before.end_s
    count = max(1, min(LINE_STEPS, math.ceil(hole_s / max(before.length_s, after.length_s, 1e-9))))
    for index in range(count):
        share = (index + 0.5) / count
        yield Stretch(
            before.end_s + hole_s * index / count,
            before.end_s + hole_s * (index + 1) / count,
            _between(before.requests_per_s, after.requests_per_s, share),
            _between(first.prompt_tokens_mean, last.prompt_tokens_mean, share),
            _between(first.output_tokens_mean, last.output_tokens_mean, share),
        )


def _between(first: float, last: float, share: float) -> float:
    return first + (last - first) * share


def requests(stretches: Sequence[Stretch], gap: Gap, sigma: float, longest: int, streams: Streams) -> Iterator[Request]:
    """Requests in order of time. `sigma` is that of the lengths' logarithm; prompt and output together are at most
    `longest` tokens, since the service has served them. Linear in the requests.
    """
    arrivals, lengths = streams("arrivals"), streams("lengths")
    tokens = LogNormal(1.0, sigma)
    windows = ((Window(one.start_s, one.end_s, one.requests_per_s), gap) for one in stretches)
    now = 0
    for at_s in renewals(windows, arrivals):
        while at_s >= stretches[now].end_s and now < len(stretches) - 1:
            now += 1
        one = stretches[now]
        prompt = min(tokens.draw(lengths, one.prompt_tokens_mean), longest - 1)
        yield at_s, prompt, min(tokens.draw(lengths, one.output_tokens_mean), longest - prompt)


def write(path: Path, stretches: Iterable[Stretch]) -> None:
    """The stretches as CSV. Raises UserError."""
    rows = (
        f"{begin:.3f},{end:.3f},{rate:.9g},{prompt:.9g},{output:.9g}" for begin, end, rate, prompt, output in stretches
    )
    try:
        path.write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; give another path") from error


def read(path: Path) -> tuple[Stretch, ...]:
    """The stretches in a file. Raises UserError with one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"measured demand {path}: cannot be read: {error.strerror}; give an existing file") from error
    except UnicodeDecodeError:
        raise UserError(f"measured demand {path}: not text; expected CSV with the header {HEADER}") from None
    return parse(text.splitlines(), str(path))


def parse(lines: Sequence[str], name: str) -> tuple[Stretch, ...]:
    """Stretches in order, without holes. Raises UserError naming `name`, the line and its value."""
    if not lines or lines[0].strip() != HEADER:
        found = lines[0][:80] if lines else "nothing"
        raise UserError(f"measured demand {name}: line 1: {found}: expected the header {HEADER}")
    found_rows = [_row(name, number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if not found_rows:
        raise UserError(f"measured demand {name}: a header and no stretch after it")
    for (number, before), (_, after) in pairwise(enumerate(found_rows, 2)):
        if abs(after.start_s - before.end_s) > 1e-3:
            raise UserError(
                f"measured demand {name}: line {number + 1}: start_s {after.start_s:g}: expected {before.end_s:g}, "
                "where the line before ends; sort the lines, and fill holes in or cut them out"
            )
    return tuple(found_rows)


def _row(name: str, number: int, line: str) -> Stretch:
    try:
        values = [float(text) for text in line.split(",")]
    except ValueError:
        values = []
    if len(values) == 5 and all(math.isfinite(value) and value >= 0 for value in values):
        one = Stretch(*values)
        if one.start_s < one.end_s and (not one.requests_per_s or min(one[3:]) >= 1):
            return one
    raise UserError(
        f"measured demand {name}: line {number}: {line[:80]}: expected five numbers ({HEADER}), the end after "
        "the start, the means at least 1 where requests come"
    )
