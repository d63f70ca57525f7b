"""ServeGen: production demand per client in windows of 600 s, with the lengths of its requests. Pure.

Format (Alibaba, arXiv 2505.09999; github.com/alibaba/ServeGen): windows as `client,t_s,rate_rps,cv,pattern,arg1,arg2`,
arg1 being the shape of the Gamma or Weibull gaps; lengths as JSON lines, the first one `{"edges": [...]}`, then per
client and 6 h `{"client", "t_s", "input_tokens", "output_tokens"}` with the tokens as `[[bin, share], ...]`.

Rules:
1. A client without lengths in a window draws from those that have them, each as often as it sends.
2. A window that a client has no row for is one in which it sends nothing.
3. `scale` is a share of the demand: thinned, as fewer of the same users would send it (below 1), or with every rate
   multiplied and each client's burstiness as it was (`stretch`).
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import accumulate
from typing import Any, NamedTuple

from simulator.arrivals import Binned, Gap, Process, Request, Window, gaps_of_shape, renewals
from simulator.rng import Rng, Streams

WINDOW_S = 600.0
LENGTHS_S = 21_600.0
_HEADER = ["client", "t_s", "rate_rps", "cv", "pattern", "arg1", "arg2"]
_PATTERNS: Mapping[str, Process] = {"Gamma": "gamma", "Weibull": "weibull"}


class ServeGenError(ValueError):
    """A line that cannot be read: its number and why."""


class Row(NamedTuple):
    """One client's window."""

    t_s: float
    rate_rps: float
    process: Process
    shape: float


@dataclass(frozen=True)
class ServeGen:
    """A whole data set: rows by client in order of time, and lengths by client and 6 h window."""

    rows: Mapping[int, Sequence[Row]]
    lengths: Mapping[tuple[int, int], tuple[Binned, Binned]]
    _pools: dict[int, tuple[list[float], list[tuple[Binned, Binned]]]] = field(default_factory=dict, repr=False)

    @property
    def span_s(self) -> float:
        """Until when there is demand."""
        return max((rows[-1].t_s + WINDOW_S for rows in self.rows.values()), default=0.0)

    def requests(
        self,
        streams: Streams,
        start_s: float,
        duration_s: float,
        scale: float = 1.0,
        *,
        stretch: bool = False,
        longer: float = 1.0,
    ) -> Iterator[Request]:
        """All clients' requests in order of time, the first moment being `start_s` of the data set; `longer`: a factor
        on all lengths.
        """
        keep, factor = (1.0, scale) if stretch or scale > 1 else (scale, 1.0)
        return merge(
            *(
                self._client(client, streams(f"client {client}"), start_s, duration_s, keep, factor, longer)
                for client in sorted(self.rows)
            )
        )

    def _client(
        self,
        client: int,
        rng: Rng,
        start_s: float,
        duration_s: float,
        keep: float,
        factor: float,
        longer: float,
    ) -> Iterator[Request]:
        for at_s in renewals(self._windows(client, start_s, duration_s, keep, factor), rng):
            prompts, outputs = self._lengths(client, int((at_s + start_s) // LENGTHS_S), rng)
            yield at_s, max(1, round(prompts.draw(rng) * longer)), max(1, round(outputs.draw(rng) * longer))

    def _windows(
        self, client: int, start_s: float, duration_s: float, keep: float, factor: float
    ) -> Iterator[tuple[Window, Gap]]:
        for row in self.rows[client]:
            begin_s, end_s = max(row.t_s - start_s, 0.0), min(row.t_s + WINDOW_S - start_s, duration_s)
            if begin_s < end_s:
                gap = gaps_of_shape(row.process, row.shape, keep)
                yield Window(begin_s, end_s, row.rate_rps * factor), gap

    def _lengths(self, client: int, window: int, rng: Rng) -> tuple[Binned, Binned]:
        own = self.lengths.get((client, window))
        if own is not None:
            return own
        if window not in self._pools:
            self._pools[window] = self._pool(window)
        up_to, pool = self._pools[window]
        return pool[min(bisect_right(up_to, rng.random() * up_to[-1]), len(pool) - 1)]

    def _pool(self, window: int) -> tuple[list[float], list[tuple[Binned, Binned]]]:
        """Who has lengths in a window, as often as each sends; of the nearest earlier or later one where nobody has."""
        known = sorted({at for _, at in self.lengths}, key=lambda at: (abs(at - window), at))
        nearest = known[0]
        weights, pool = [], []
        for (client, at), lengths in sorted(self.lengths.items(), key=lambda item: item[0]):
            if at == nearest:
                sent = sum(row.rate_rps for row in self.rows.get(client, ()) if int(row.t_s // LENGTHS_S) == at)
                weights.append(sent + 1e-9)
                pool.append(lengths)
        return list(accumulate(weights)), pool


def parse(windows: Iterable[str], lengths: Iterable[str]) -> ServeGen:
    """A data set from the lines of its two files. Raises ServeGenError. Linear."""
    return ServeGen(_rows(windows), _all_lengths(lengths))


def _rows(lines: Iterable[str]) -> dict[int, list[Row]]:
    rows: dict[int, list[Row]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        fields = line.strip().split(",")
        if number == 1:
            if fields != _HEADER:
                raise ServeGenError(f"line 1: {line.strip()[:80]!r}: expected the header {','.join(_HEADER)}")
            continue
        try:
            client, t_s, rate_rps, _, pattern, shape, _ = fields
            row = Row(float(t_s), float(rate_rps), _PATTERNS[pattern], float(shape))
            before = rows[int(client)]
        except (ValueError, KeyError):
            raise ServeGenError(
                f"line {number}: {line.strip()[:80]!r}: expected {','.join(_HEADER)}, the pattern Gamma or Weibull"
            ) from None
        if row.rate_rps < 0 or row.shape <= 0 or (before and row.t_s <= before[-1].t_s):
            raise ServeGenError(f"line {number}: {line.strip()[:80]!r}: expected rate >= 0, arg1 > 0, rising t_s")
        before.append(row)
    if not rows:
        raise ServeGenError("empty: expected windows after the header")
    return dict(rows)


def _all_lengths(lines: Iterable[str]) -> dict[tuple[int, int], tuple[Binned, Binned]]:
    found: dict[tuple[int, int], tuple[Binned, Binned]] = {}
    edges: list[int] = []
    for number, line in enumerate(lines, 1):
        try:
            raw: Any = json.loads(line)
            if not edges:
                edges = [int(edge) for edge in raw["edges"]]
                continue
            both = _binned(edges, raw["input_tokens"]), _binned(edges, raw["output_tokens"])
            found[int(raw["client"]), int(raw["t_s"] // LENGTHS_S)] = both
        except (ValueError, KeyError, TypeError, IndexError):
            raise ServeGenError(
                f"line {number}: {line.strip()[:60]!r}: expected edges first, then client, t_s, input_tokens and "
                "output_tokens"
            ) from None
    if not found:
        raise ServeGenError("empty: expected lengths after the edges")
    return found


def _binned(edges: Sequence[int], shares: Sequence[Sequence[float]]) -> Binned:
    pairs = [(int(index), float(share)) for index, share in shares]
    if not pairs or any(not 0 <= index < len(edges) - 1 or share < 0 for index, share in pairs):
        raise ValueError("not a distribution")
    return Binned(edges, pairs)
