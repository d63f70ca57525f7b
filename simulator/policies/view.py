"""An Observation as the baselines read it: groups with their gauges, and traffic over a window.

Rule: a gauge that no page gives is None here, never 0; each baseline does with it what its original does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from autoscaler.model import Number, Observation, RoleFleet, RouterSample, WorkerSample
from perfmodel.profile import Profile
from policies.model import ROLES, Missing, Pair, Role


@dataclass(frozen=True, slots=True)
class Service:
    """What an operator tells any autoscaler of a service; sizes in TP groups."""

    profiles: dict[Role, Profile]
    ttft_ms: float
    itl_ms: float
    minimum: Pair
    maximum: Pair
    gpus_per_group: Pair
    budget_gpus: int

    def bounded(self, pair: Pair) -> Pair:
        """Inside the bounds."""
        return Pair(*(min(max(pair[role], self.minimum[role]), self.maximum[role]) for role in ROLES))


@dataclass(frozen=True, slots=True)
class GroupView:
    """One TP group: its gauges, summed over its engines. `kv_usage` is the mean, `kv_tokens` its part of the cache."""

    key: str
    running: float | None
    waiting: float | None
    kv_usage: float | None
    kv_capacity_tokens: float | None

    @property
    def kv_tokens(self) -> float | None:
        """Tokens in the cache."""
        if self.kv_usage is None or self.kv_capacity_tokens is None:
            return None
        return self.kv_usage * self.kv_capacity_tokens


@dataclass(frozen=True, slots=True)
class RoleView:
    """One role: groups asked for, groups ready, and the ready groups that could be read."""

    replicas: int
    ready: int
    groups: tuple[GroupView, ...]

    @property
    def starting(self) -> bool:
        """Whether what is there is not what was asked for."""
        return self.replicas != self.ready


def view(seen: Observation, role: Role) -> RoleView | None:
    """A role as its baselines see it; None where it has no workload."""
    fleet = seen.fleet[role]
    if not isinstance(fleet, RoleFleet):
        return None
    ready = {group.key for group in fleet.groups if group.ready}
    by_group: dict[str, list[WorkerSample]] = {}
    for sample in seen.samples.workers:
        if sample.role is role and (not fleet.groups or sample.group in ready):
            by_group.setdefault(sample.group, []).append(sample)
    groups = tuple(_group(key, samples) for key, samples in sorted(by_group.items()))
    return RoleView(fleet.replicas, fleet.ready, groups)


def current(seen: Observation) -> Pair | None:
    """The sizes asked for; None where a role has no workload."""
    prefill, decode = seen.fleet.prefill, seen.fleet.decode
    if not isinstance(prefill, RoleFleet) or not isinstance(decode, RoleFleet):
        return None
    return Pair(prefill.replicas, decode.replicas)


def in_router(seen: Observation) -> float:
    """Requests that routers hold for want of a prefill worker."""
    held = (router.in_flight for router in seen.samples.routers)
    return sum(stages.get("unassigned", 0.0) for stages in held if not isinstance(stages, Missing))


def _group(key: str, samples: list[WorkerSample]) -> GroupView:
    usages = [usage for sample in samples if (usage := known(sample.kv_usage)) is not None]
    return GroupView(
        key,
        running=_total(sample.running for sample in samples),
        waiting=_total(sample.waiting for sample in samples),
        kv_usage=sum(usages) / len(usages) if usages else None,
        kv_capacity_tokens=_total(sample.kv_capacity_tokens for sample in samples),
    )


def known(value: Number) -> float | None:
    """The number, or None."""
    return None if isinstance(value, Missing) else value


def _total(values: Iterable[Number]) -> float | None:
    found = [number for value in values if (number := known(value)) is not None]
    return sum(found) if found else None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a frontend counted over a window. Averages are of what was counted in it; None without any."""

    duration_s: float
    requests: float
    prompt_tokens_mean: float | None
    output_tokens_mean: float | None
    output_tokens: float


@dataclass(slots=True)
class TrafficMeter:
    """Traffic over the last `window_s`, from the counters of all routers. A counter that falls counts from 0."""

    window_s: float
    _last: dict[str, tuple[float, ...]] = field(default_factory=dict)
    _sums: deque[tuple[float, tuple[float, ...]]] = field(default_factory=deque)

    def look(self, seen: Observation) -> None:
        """Take one observation. Linear in the routers."""
        total = self._sums[-1][1] if self._sums else (0.0,) * 5
        for router in seen.samples.routers:
            now = _counters(router)
            before = self._last.get(router.uid)
            if before is not None:
                total = tuple(t + (n - b if n >= b else n) for t, n, b in zip(total, now, before, strict=True))
            self._last[router.uid] = now
        self._sums.append((seen.now_s, total))
        while len(self._sums) > 2 and self._sums[1][0] <= seen.now_s - self.window_s:
            self._sums.popleft()

    def traffic(self) -> Traffic | None:
        """What came in the window, or since the first look; None before a second one."""
        if len(self._sums) < 2:
            return None
        (begin_s, begin), (end_s, end) = self._sums[0], self._sums[-1]
        arrivals, prompt_tokens, prompts, output_tokens, finished = (e - b for e, b in zip(end, begin, strict=True))
        return Traffic(
            end_s - begin_s,
            arrivals,
            prompt_tokens / prompts if prompts > 0 else None,
            output_tokens / finished if finished > 0 else None,
            output_tokens,
        )


def _counters(router: RouterSample) -> tuple[float, ...]:
    """Arrivals, prompt tokens and their prompts, output tokens and finished requests."""
    arrivals = known(router.arrivals) or 0.0
    prompts = known(router.prompts)
    return (
        arrivals,
        known(router.prompt_tokens) or 0.0,
        arrivals if prompts is None else prompts,
        known(router.generation_tokens) or 0.0,
        known(router.finished) or 0.0,
    )
