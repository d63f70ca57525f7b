"""A planner like Dynamo's in its `sla` mode: a floor from a forecast every 180 s, one group more or fewer every 5 s.

Throughput step: of the last 180 s, requests, mean prompt and mean output are each forecast one step ahead; prefill =
ceil(rps / (1 / prefill time of one prompt)), at least ceil(that time / TTFT target) where it is longer; decode =
ceil(rps / (B / (output x ITL(B)))), B the largest batch at context prompt + output / 2 that meets the ITL target. With
load scaling on, these are lower bounds of the load step.

Load step: TTFT of a group = prefill time of its queued prompt tokens and one more mean prompt, by chunks; ITL of a
group = a step over its cached and queued tokens and one more sequence. All groups above the target: one more. Otherwise
one fewer, if on every group the queue x N/(N-1) takes less than 80 % of (target - own time), for decode if tokens x
N/(N-1) fit the cache and their ITL stays below 80 % of the target. No step while a role has other groups than it asked
for: both roles wait. Then the minimum of 1, the budget and the bounds; over the budget, max_p = (budget - min x gpus_d)
/ gpus_p, prefill = max(min, min(max_p, floor(prefill x budget / total))), decode = max(min, floor(rest / gpus_d)),
which may grow decode.

Source: ai-dynamo/dynamo components/src/dynamo/planner/core/{load_scaling,throughput_scaling,state_machine}.py,
perf_model/{prefill,decode}.py, config/defaults.py. Kinder than the original: it knows the profile, where the original
fits a line to what it has observed. Without: prefix hit rates, power, ARIMA orders other than (1, 1, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from autoscaler.model import Observation
from perfmodel.profile import Profile
from policies.model import ROLES, Pair, Role
from simulator.policies.view import GroupView, RoleView, Service, TrafficMeter, current, view

THROUGHPUT_S, LOAD_S = 180.0, 5.0
SENSITIVITY = 0.8
ARIMA_MIN_POINTS = 5

Predictor = Callable[[Sequence[float]], float]
"""The next value of a series."""


def last_value(series: Sequence[float]) -> float:
    """Dynamo's `constant` predictor."""
    return series[-1]


def arima(series: Sequence[float]) -> float:
    """ARIMA(1, 1, 0) with a mean: the differences regressed on those before them; the last value below 5 points and
    where the differences do not vary. Never below 0.
    """
    steps = [after - before for before, after in pairwise(series)]
    if len(series) < ARIMA_MIN_POINTS:
        return series[-1]
    xs, ys = steps[:-1], steps[1:]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread <= 1e-12:
        return max(0.0, series[-1] + mean_y)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    slope = min(0.99, max(-0.99, slope))
    return max(0.0, series[-1] + mean_y + slope * (steps[-1] - mean_x))


@dataclass(slots=True)
class DynamoLike:
    """The planner. Either step can be switched off, as in the original."""

    service: Service
    predictor: Predictor = arima
    throughput: bool = True
    load: bool = True
    _meter: TrafficMeter = field(default_factory=lambda: TrafficMeter(THROUGHPUT_S))
    _series: tuple[list[float], list[float], list[float]] = field(default_factory=lambda: ([], [], []))
    _floor: Pair = field(default_factory=lambda: Pair(1, 1))
    _throughput_due_s: float | None = None
    _load_due_s: float = -math.inf
    _last: Pair | None = None

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set."""
        self._meter.look(seen)
        if self._throughput_due_s is None:
            self._throughput_due_s = seen.now_s + THROUGHPUT_S
        if self.throughput and seen.now_s >= self._throughput_due_s:
            self._throughput_due_s = seen.now_s + THROUGHPUT_S
            if (floor := self._forecast()) is not None:
                self._floor = floor
                self._last = self._last if self.load else self._budgeted(floor)
        if self.load and seen.now_s >= self._load_due_s:
            self._load_due_s = seen.now_s + LOAD_S
            self._last = self._load_step(seen) or self._last
        return self._last

    def _forecast(self) -> Pair | None:
        traffic = self._meter.traffic()
        if traffic is None:
            return None
        seen = (traffic.requests, traffic.prompt_tokens_mean or 0.0, traffic.output_tokens_mean or 0.0)
        for series, value in zip(self._series, seen, strict=True):
            if series or value:
                series.append(value)
        if not all(self._series):
            return None
        requests, prompt, output = (self.predictor(series) for series in self._series)
        if prompt <= 0 or output <= 0:
            return None
        rps = requests / traffic.duration_s
        return Pair(self._prefill_for(rps, prompt), self._decode_for(rps, prompt, output))

    def _prefill_for(self, rps: float, prompt: float) -> int:
        alone_ms = prefill_ms(self.service.profiles[Role.PREFILL], prompt)
        late = math.ceil(alone_ms / self.service.ttft_ms) if alone_ms > self.service.ttft_ms else 1
        return max(math.ceil(rps * alone_ms / 1000 - 1e-9), late, 1)

    def _decode_for(self, rps: float, prompt: float, output: float) -> int:
        profile = self.service.profiles[Role.DECODE]
        context = min(prompt + output / 2, profile.decode.ys[-1])
        batch = max(1, profile.max_decode_batch(context, self.service.itl_ms))
        engine_rps = batch / (output * profile.decode_ms(batch, context) / 1000)
        return max(math.ceil(rps / engine_rps - 1e-9), 1)

    def _load_step(self, seen: Observation) -> Pair | None:
        now = current(seen)
        prefill, decode = view(seen, Role.PREFILL), view(seen, Role.DECODE)
        if now is None or prefill is None or decode is None:
            return None
        if any(role.starting or len(role.groups) != role.ready for role in (prefill, decode)):
            return None
        moved = Pair(now.prefill + self._prefill_move(prefill), now.decode + self._decode_move(decode))
        floored = Pair(*(max(moved[role], self._floor[role] if self.throughput else 1) for role in ROLES))
        return self._budgeted(floored)

    def _prefill_move(self, fleet: RoleView) -> int:
        profile, target_ms = self.service.profiles[Role.PREFILL], self.service.ttft_ms
        traffic = self._meter.traffic()
        prompt = traffic.prompt_tokens_mean if traffic else None
        if prompt is None or not fleet.groups:
            return 0
        queued = [(group.waiting or 0.0) * prompt for group in fleet.groups]
        own_ms = prefill_ms(profile, prompt)
        if all(prefill_ms(profile, tokens + prompt) > target_ms for tokens in queued):
            return 1
        more = _consolidated(fleet)
        room_ms = (target_ms - own_ms) * SENSITIVITY
        waits_ms = (prefill_ms(profile, tokens * more + prompt) - own_ms for tokens in queued)
        return -1 if fleet.ready > 1 and room_ms > 0 and all(wait_ms < room_ms for wait_ms in waits_ms) else 0

    def _decode_move(self, fleet: RoleView) -> int:
        target_ms = self.service.itl_ms
        if not fleet.groups or any(group.kv_tokens is None or group.running is None for group in fleet.groups):
            return 0
        if all(self._itl_ms(group, 1.0) > target_ms for group in fleet.groups):
            return 1
        more = _consolidated(fleet)
        fits = all(self._decode_tokens(group) * more < (group.kv_capacity_tokens or 0.0) for group in fleet.groups)
        fast = all(self._itl_ms(group, more) < target_ms * SENSITIVITY for group in fleet.groups)
        return -1 if fleet.ready > 1 and fits and fast else 0

    def _decode_tokens(self, group: GroupView) -> float:
        """Tokens that a group's running and queued sequences have in its cache or will bring."""
        running = group.running or 0.0
        each = (group.kv_tokens or 0.0) / running if running else 0.0
        return (group.kv_tokens or 0.0) + (group.waiting or 0.0) * each

    def _itl_ms(self, group: GroupView, factor: float) -> float:
        """The next step of a group with `factor` times its sequences, and one more of their mean length."""
        profile = self.service.profiles[Role.DECODE]
        sequences = (group.running or 0.0) + (group.waiting or 0.0)
        tokens = self._decode_tokens(group)
        batch = min(sequences * factor + 1, profile.max_num_seqs)
        return profile.decode_ms(batch, min(tokens / sequences if sequences else 0.0, profile.decode.ys[-1]))

    def _budgeted(self, pair: Pair) -> Pair:
        return self.service.bounded(dynamo_budget(pair, self.service.gpus_per_group, self.service.budget_gpus))


def dynamo_budget(pair: Pair, gpus: Pair, budget_gpus: int, least: int = 1) -> Pair:
    """Dynamo's clamp: prefill in proportion, decode what is left of the budget, though it did not ask for it."""
    total = pair.prefill * gpus.prefill + pair.decode * gpus.decode
    if total <= budget_gpus:
        return pair
    if budget_gpus < least * (gpus.prefill + gpus.decode):
        return Pair(0, 0)
    most = (budget_gpus - least * gpus.decode) // gpus.prefill
    prefill = max(least, min(most, math.floor(pair.prefill * budget_gpus / total)))
    return Pair(prefill, max(least, (budget_gpus - prefill * gpus.prefill) // gpus.decode))


def prefill_ms(profile: Profile, tokens: float) -> float:
    """Prefill of so many tokens in chunks of the engine's batched-token budget, each as if nothing were cached."""
    chunk = float(profile.prefill_chunk_tokens)
    whole, rest = divmod(tokens, chunk)
    return whole * profile.prefill_ms(chunk) + profile.prefill_ms(rest)


def _consolidated(fleet: RoleView) -> float:
    """N / (N - 1)."""
    return fleet.ready / (fleet.ready - 1) if fleet.ready > 1 else 1.0
