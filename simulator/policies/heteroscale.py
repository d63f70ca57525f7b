"""HeteroScale: both roles from one metric, the tokens that decode generates per second, at a fixed ratio.

Formula: r = TPS / (target TPS of a decode group x decode groups); beyond 1 +- 0.1, decode = ceil(TPS / target) and
prefill = ceil(ratio x decode); before that, ITL's P99 above 1.2 x its target adds 20 % of both (negative feedback).
Target and ratio come from a pressure test: here from the profile, at the mean lengths that an operator gives.

Source: arXiv 2508.19559 (decode TPS as the one robust signal, proportional control, negative feedback on latency, a
preset P/D ratio); the thresholds are those of a public re-implementation of it, since the paper gives no numbers.
Without: its scheduler and its periodic schedule. Window and period 60 s and 15 s are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autoscaler.core import histogram
from autoscaler.model import Histogram, Observation
from policies.model import ROLES, Missing, Pair, Role
from simulator.policies.view import Service, TrafficMeter, current

WINDOW_S, PERIOD_S = 60.0, 15.0
TOLERANCE = 0.1
LATE_FACTOR, LATE_PERCENTILE, EMERGENCY = 1.2, 99.0, 0.2


@dataclass(slots=True)
class HeteroScale:
    """`prompt_tokens`, `output_tokens`: the mean lengths of the pressure test."""

    service: Service
    prompt_tokens: float
    output_tokens: float
    _meter: TrafficMeter = field(default_factory=lambda: TrafficMeter(WINDOW_S))
    _itl: dict[str, Histogram] = field(default_factory=dict)
    _due_s: float = -math.inf
    _last: Pair | None = None

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set."""
        self._meter.look(seen)
        now = current(seen)
        if now is None or seen.now_s < self._due_s:
            return self._last
        self._due_s = seen.now_s + PERIOD_S
        late_ms = self._itl_p99_ms(seen)
        traffic = self._meter.traffic()
        if late_ms is not None and late_ms > LATE_FACTOR * self.service.itl_ms:
            self._last = self.service.bounded(Pair(*(math.ceil(now[role] * (1 + EMERGENCY)) for role in ROLES)))
        elif traffic is not None:
            self._last = self._proportional(traffic.output_tokens / traffic.duration_s, now)
        return self._last

    def _proportional(self, tokens_per_s: float, now: Pair) -> Pair:
        ratio = tokens_per_s / (self.target_tps * max(1, now.decode))
        if abs(ratio - 1) <= TOLERANCE:
            return self.service.bounded(now)
        decode = max(1, math.ceil(tokens_per_s / self.target_tps - 1e-9))
        return self.service.bounded(Pair(math.ceil(decode * self.pd_ratio - 1e-9), decode))

    @property
    def target_tps(self) -> float:
        """Tokens/s of a decode group with as many sequences as meet the ITL target."""
        batch, itl_s = self._full
        return batch / itl_s

    @property
    def pd_ratio(self) -> float:
        """Prefill groups that keep one full decode group supplied."""
        prefill_s = self.service.profiles[Role.PREFILL].prefill_ms(self.prompt_tokens) / 1000
        return self.target_tps / self.output_tokens * prefill_s

    @property
    def _full(self) -> tuple[int, float]:
        profile = self.service.profiles[Role.DECODE]
        context = min(self.prompt_tokens + self.output_tokens / 2, profile.decode.ys[-1])
        batch = max(1, profile.max_decode_batch(context, self.service.itl_ms))
        return batch, profile.decode_ms(batch, context) / 1000

    def _itl_p99_ms(self, seen: Observation) -> float | None:
        """Of what was seen since the last turn."""
        window: Histogram | Missing = histogram.NO_TRAFFIC
        for router in seen.samples.routers:
            if isinstance(router.itl, Histogram):
                if router.uid in self._itl:
                    window = histogram.add(window, histogram.increase(self._itl[router.uid], router.itl))
                self._itl[router.uid] = router.itl
        value_s = histogram.percentile_s(window, LATE_PERCENTILE)
        return None if isinstance(value_s, Missing) else value_s * 1000
