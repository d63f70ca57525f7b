"""TokenScale: tokens that arrive per second against the token velocity of each stage.

Formula: prefill = ceil(prompt tokens/s / min(V_P, V_N)), decode = ceil(prompt and output tokens/s / V_D), with V_P the
prompt tokens/s that a group prefills, V_N those that its link moves, and V_D the tokens/s that a full decode group
releases from its memory: batch x (prompt + output) / (output x ITL).

Source: arXiv 2512.03416 (token velocity of prefill, network and decode, sizes from the token arrival rates). Without:
convertible decoders, which an engine of a fixed mode cannot be, and its predictor of output lengths: the mean of the
last minutes stands in for both it and its buckets. The window of 10 s is ours; shrinking waits for the highest need of
the last 60 s, as its original keeps instances for a while.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from autoscaler.model import Observation
from policies.model import ROLES, Pair, Role
from simulator.policies.view import Service, TrafficMeter, current

WINDOW_S, LENGTHS_S, KEEP_S = 10.0, 300.0, 60.0


@dataclass(slots=True)
class TokenScale:
    """The sizes for the velocities; a need is kept for a minute."""

    service: Service
    _arrivals: TrafficMeter = field(default_factory=lambda: TrafficMeter(WINDOW_S))
    _lengths: TrafficMeter = field(default_factory=lambda: TrafficMeter(LENGTHS_S))
    _needs: deque[tuple[float, Pair]] = field(default_factory=deque)
    _last: Pair | None = None

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set."""
        self._arrivals.look(seen)
        self._lengths.look(seen)
        need = self._need()
        if need is None or current(seen) is None:
            return self._last
        self._needs.append((seen.now_s, need))
        while self._needs[0][0] <= seen.now_s - KEEP_S:
            self._needs.popleft()
        kept = Pair(*(max(pair[role] for _, pair in self._needs) for role in ROLES))
        self._last = self.service.bounded(kept)
        return self._last

    def _need(self) -> Pair | None:
        came, lengths = self._arrivals.traffic(), self._lengths.traffic()
        if came is None or lengths is None or not lengths.prompt_tokens_mean or not lengths.output_tokens_mean:
            return None
        prompt, output = lengths.prompt_tokens_mean, lengths.output_tokens_mean
        rate = came.requests / came.duration_s
        prompt_tokens_per_s = rate * (came.prompt_tokens_mean or prompt)
        v_prefill, v_decode = self.velocities(prompt, output)
        return Pair(
            math.ceil(prompt_tokens_per_s / v_prefill - 1e-9),
            math.ceil((prompt_tokens_per_s + rate * output) / v_decode - 1e-9),
        )

    def velocities(self, prompt: float, output: float) -> tuple[float, float]:
        """Tokens/s of one group: min(V_P, V_N) and V_D."""
        prefill, decode = self.service.profiles[Role.PREFILL], self.service.profiles[Role.DECODE]
        v_prefill = prompt / prefill.prefill_ms(min(prompt, prefill.prefill.xs[-1])) * 1000
        v_network = prompt / prefill.transfer_ms(prompt) * 1000
        context = min(prompt + output / 2, decode.decode.ys[-1])
        batch = max(1, decode.max_decode_batch(context, self.service.itl_ms))
        v_decode = batch * (prompt + output) / (output * decode.decode_ms(batch, context) / 1000)
        return min(v_prefill, v_network), v_decode
