"""The controller's own HTTP pages: `/metrics`, `/healthz`, `/readyz` and `/v1/status`.

Rules:
1. What is not known is absent: a desired count never echoes the current one.
2. No label has a name that a scrape adds (namespace, pod, service, ...), or Prometheus would rename it.
3. Gauges are made from the last decision at every scrape, so none can outlive what it described.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from itertools import product

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from autoscaler.adapters.status import Status, to_json
from autoscaler.errors import UserError
from autoscaler.model import Decision, Number, Observation, RoleFleet
from autoscaler.settings import Settings
from perfmodel.correction import RoleCorrection
from policies.model import ROLES, Missing, Role

_PREFIX = "roleratio_controller_"
_SERVICE = ("target_namespace", "target_service")
_ROLE = (*_SERVICE, "role")
_SERIES = (*_SERVICE, "series")
_STALLED_PERIODS = 10
_STALLED_S = 60.0
_TICK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_GAUGES = {
    "desired_groups": ("TP groups that the role should have; absent while that is not known", _ROLE),
    "floor_groups": ("TP groups that the gang minimum should protect", _ROLE),
    "current_groups": ("TP groups that the workload asks for", _ROLE),
    "ready_groups": ("TP groups with all ranks ready", _ROLE),
    "present_groups": ("TP groups that hold GPUs: any pod is left, draining ones included", _ROLE),
    "fit_groups": ("TP groups that could be placed beside all that exist; absent while that is not known", _ROLE),
    "group_limit": ("Bounds of the role's TP groups", (*_ROLE, "bound")),
    "min_count_pods": ("The PodGroup's minimum", _ROLE),
    "gpus_per_group": ("GPUs of one TP group; absent while that is not known", _ROLE),
    "cold_start_seconds": ("Time from asking for a group to its being ready, as measured", _ROLE),
    "running_requests": ("Requests in the batches of the role's workers", _ROLE),
    "waiting_requests": ("Requests that wait on the role's workers", _ROLE),
    "deferred_requests": ("Those of the waiting requests whose KV has not come over yet", _ROLE),
    "kv_usage_ratio": ("KV cache in use, 0 to 1: the mean of the role's TP groups", _ROLE),
    "kv_usage_max_ratio": ("KV cache in use, 0 to 1: the fullest engine", _ROLE),
    "read_groups": ("TP groups whose engines were read", _ROLE),
    "unread_groups": ("Ready TP groups that could not be read whole", _ROLE),
    "engines_per_group": ("Engines (data-parallel ranks) of a TP group, as their pages show", _ROLE),
    "stalled_groups": ("TP groups that hold work and make no progress", _ROLE),
    "profile_factor": (
        "By how much longer the role's steps take than the profile says, as learned from the fleet",
        _ROLE,
    ),
    "profile_samples": (
        "Times that were compared with the profile; excluded: those of groups that started",
        (*_ROLE, "kind"),
    ),
    "profile_error_ratio": (
        "Mean absolute error of predicted times: of the profile alone, and with what was learned",
        (*_ROLE, "of"),
    ),
    "profile_context_factor": (
        "Tokens that decode holds per sequence over what mean lengths say, as learned from the fleet",
        _SERVICE,
    ),
    "demand_requests_per_second": ("Requests that arrived", _SERVICE),
    "demand_tokens_per_second": (
        "Offered work of the role: prompt tokens for prefill, output tokens for decode",
        _ROLE,
    ),
    "forecast_tokens_per_second": (
        "Offered work one cold start ahead: quantile 0.5 is expected, the other one covers that share of the work",
        (*_ROLE, "quantile"),
    ),
    "forecast_model": ("1 for who forecasts the role's work now", (*_ROLE, "model")),
    "outlook_value": (
        "What is foretold of a series (per second; a share is 0 to 1) at its horizon, by quantile",
        (*_SERIES, "quantile"),
    ),
    "outlook_horizon_seconds": ("How far ahead a series is foretold", _SERIES),
    "outlook_coverage_ratio": (
        "Share of what came that was at or below what had been foretold, by quantile",
        (*_SERIES, "quantile"),
    ),
    "outlook_wape_ratio": ("Sum of the absolute errors of what was foretold over the sum of what came", _SERIES),
    "outlook_pinball": (
        "Mean pinball loss of what was foretold, and of the last value in its place",
        (*_SERIES, "of"),
    ),
    "outlook_weight_ratio": ("What each model weighs in the median of a series", (*_SERIES, "model")),
    "outlook_fallback": ("1 for what a series' forecast falls back to; none: to nothing", (*_SERIES, "fallback")),
    "latency_seconds": ("The SLO's percentile as users saw it", (*_SERVICE, "objective")),
    "latency_target_seconds": ("The SLO's target", (*_SERVICE, "objective")),
    "attained_target_ratio": ("Share of the samples that the SLO wants within its target", (*_SERVICE, "objective")),
    "attained_ratio": ("Share of the samples within the SLO's target", (*_SERVICE, "objective")),
    "ratio_limit": ("Prefill groups per decode group: the band's bounds", (*_SERVICE, "bound")),
    "mode": ("1 for the mode that the service is in", (*_SERVICE, "mode")),
    "gpu_budget": ("GPUs that both roles together may use", _SERVICE),
    "failed_sources": ("Pods or queries that gave no sample", _SERVICE),
    "condition": ("1 for the status that a condition has, 0 for the others", (*_SERVICE, "type", "status")),
    "last_tick_timestamp_seconds": ("When the last decision was taken", _SERVICE),
}

_Labelled = tuple[str, tuple[str, ...], Number]
"""A gauge's name, the values of its labels, its value."""


class Exporter:
    """Serves what the controller last decided.

    `clock` is a monotonic clock in seconds. `problem` says why the cluster cannot be seen, or nothing; `leads`
    whether this process may write, and `standing` who leads instead.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        problem: Callable[[], str] = lambda: "",
        leads: Callable[[], bool] = lambda: True,
        standing: Callable[[], str] = lambda: "ok",
    ) -> None:
        self._clock = clock
        self._problem = problem
        self._standing = standing
        self._last: dict[str, tuple[Status, float]] = {}
        self._runner: web.AppRunner | None = None
        self._registry = CollectorRegistry()
        self._registry.register(_Latest(self._last))
        leader = Gauge(f"{_PREFIX}leader", "1 while this process may write", registry=self._registry)
        leader.set_function(lambda: float(leads()))
        fine = Gauge(
            f"{_PREFIX}cluster_reachable", "1 while the cluster can be seen and written", registry=self._registry
        )
        fine.set_function(lambda: float(not problem()))
        reason_labels = (*_SERVICE, "role", "stage", "code")
        self._reasons = Counter(
            f"{_PREFIX}reasons", "Reasons given in decisions", reason_labels, registry=self._registry
        )
        step_labels = (*_ROLE, "kind", "direction")
        self._steps = Counter(f"{_PREFIX}steps", "Changes decided on", step_labels, registry=self._registry)
        self._dropped = Counter(
            f"{_PREFIX}dropped_samples",
            "Samples of pods that are gone, not ready, or older than the pod of that name",
            _SERVICE,
            registry=self._registry,
        )
        self._ticks = Histogram(
            f"{_PREFIX}tick_seconds",
            "Duration of a tick without the network",
            _SERVICE,
            buckets=_TICK_BUCKETS_S,
            registry=self._registry,
        )

    def observe(self, settings: Settings, observation: Observation, decision: Decision, tick_s: float) -> None:
        """Take note of one tick."""
        status = Status.of(settings, observation, decision)
        service = _service(status)
        if status.service not in self._last:
            self._count_from_zero(service)
        self._last[status.service] = (status, self._clock())
        self._ticks.labels(*service).observe(tick_s)
        self._dropped.labels(*service).inc(len(observation.samples.ghosts))
        for reason in decision.why:
            self._reasons.labels(*service, reason.role or "", reason.stage, reason.code).inc()
        if step := decision.step:
            direction = "up" if step.after > step.before else "down"
            self._steps.labels(*service, step.role, step.kind, direction).inc()

    def forget(self, settings: Settings) -> None:
        """The service is no longer decided on here: no gauge, no status, and no health may speak of it."""
        self._last.pop(f"{settings.metadata.namespace}/{settings.spec.service}", None)

    def _count_from_zero(self, service: tuple[str, str]) -> None:
        """A counter that first appears as 1 has no increase that Prometheus could see."""
        for role, kind, direction in product(ROLES, ("replicas", "min_count"), ("up", "down")):
            self._steps.labels(*service, role, kind, direction)

    async def start(self, host: str, port: int) -> int:
        """Serve, and return the port (a free one for 0). Raises UserError if it is taken."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/v1/status", self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise UserError(f"port {port} on {host} {why}; choose another one, or 0 for any free port") from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=generate_latest(self._registry), headers=headers)

    async def _healthz(self, _: web.Request) -> web.Response:
        now_s = self._clock()
        for name, (status, at_s) in self._last.items():
            limit_s = max(_STALLED_S, _STALLED_PERIODS * status.settings.spec.sync_period_s)
            if now_s - at_s > limit_s:
                return web.Response(status=503, text=f"{name}: no decision for {now_s - at_s:.0f} s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = self._problem()
        return web.Response(status=503 if problem else 200, text=f"{problem or self._standing()}\n")

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response({"services": {name: to_json(status) for name, (status, _) in self._last.items()}})


class _Latest(Collector):
    """Gauges of the last decisions."""

    def __init__(self, last: dict[str, tuple[Status, float]]) -> None:
        self._last = last

    def collect(self) -> Iterator[Metric]:
        families = {
            name: GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=labels) for name, (text, labels) in _GAUGES.items()
        }
        for status, _ in self._last.values():
            for name, labels, value in (*_of_service(status), *_of_roles(status), *_of_outlook(status)):
                if not isinstance(value, Missing):
                    families[name].add_metric(labels, value)
        yield from families.values()


def _service(status: Status) -> tuple[str, str]:
    return status.settings.metadata.namespace, status.settings.spec.service


def _of_service(status: Status) -> Iterator[_Labelled]:
    service, signals, slo = _service(status), status.decision.signals, status.settings.spec.slo
    band = status.settings.spec.ratio_band
    yield "ratio_limit", (*service, "min"), band.min
    yield "ratio_limit", (*service, "max"), band.max
    yield "mode", (*service, status.settings.spec.mode), 1
    yield "gpu_budget", service, status.settings.spec.gpu_budget
    yield "failed_sources", service, len(status.failures)
    yield "last_tick_timestamp_seconds", service, status.now_s
    yield "profile_context_factor", service, status.learned.context
    yield "demand_requests_per_second", service, signals.demand.requests_per_s
    for role in ROLES:
        yield "demand_tokens_per_second", (*service, role.value), signals.demand.tokens_per_s(role)
    for objective, seen, wanted in (("ttft", signals.ttft, slo.ttft), ("itl", signals.itl, slo.itl)):
        labels = (*service, objective)
        yield "latency_seconds", labels, _scaled(seen.value_ms, 1e-3)
        yield "latency_target_seconds", labels, wanted.target_ms * 1e-3
        yield "attained_target_ratio", labels, wanted.percentile / 100
        yield "attained_ratio", labels, seen.attained
    for condition in status.decision.conditions:
        for value in ("True", "False", "Unknown"):
            yield "condition", (*service, condition.type, value), float(value == condition.status)


def _of_roles(status: Status) -> Iterator[_Labelled]:
    for role in ROLES:
        labels = (*_service(status), role.value)
        bounds, signals = status.settings.spec.role(role), status.decision.signals[role]
        yield "group_limit", (*labels, "min"), bounds.min_groups
        yield "group_limit", (*labels, "max"), bounds.max_groups
        yield "cold_start_seconds", labels, signals.cold_start_s
        yield "running_requests", labels, signals.running
        yield "waiting_requests", labels, signals.waiting
        yield "deferred_requests", labels, signals.waiting_deferred
        yield "kv_usage_ratio", labels, signals.kv_usage
        yield "kv_usage_max_ratio", labels, signals.kv_usage_max
        yield "read_groups", labels, signals.groups_read
        yield "unread_groups", labels, len(signals.unread)
        yield "engines_per_group", labels, signals.engines_per_group
        yield "stalled_groups", labels, len(signals.stalled)
        yield from _learned(labels, _correction(status, role))
        if (target := status.decision.target) and target.desires(role):
            yield "desired_groups", labels, target.groups[role]
            yield "floor_groups", labels, target.floor[role]
        ahead = status.decision.forecast[role]
        if not isinstance(ahead, Missing):
            yield "forecast_model", (*labels, ahead.model), 1
            yield "forecast_tokens_per_second", (*labels, "0.5"), ahead.tokens_per_s_q50
            yield "forecast_tokens_per_second", (*labels, f"{ahead.quantile:g}"), ahead.tokens_per_s_high
        if isinstance(fleet := status.fleet[role], RoleFleet):
            yield "current_groups", labels, fleet.replicas
            yield "ready_groups", labels, fleet.ready
            yield "present_groups", labels, fleet.present
            yield "fit_groups", labels, fleet.fit
            yield "min_count_pods", labels, fleet.min_pods
            yield "gpus_per_group", labels, fleet.gpus_per_group


def _of_outlook(status: Status) -> Iterator[_Labelled]:
    """The learned forecasts, with the errors that they have shown; without any, nothing is said of errors."""
    for name, said in status.outlook.series.items():
        labels, measured = (*_service(status), name.removesuffix("_per_s")), said.measured
        yield "outlook_horizon_seconds", labels, said.horizon_s
        yield "outlook_fallback", (*labels, said.fallback), 1
        for quantile, value in zip(said.quantiles, said.values, strict=True):
            yield "outlook_value", (*labels, f"{quantile:g}"), value
        for model, weight in said.weights.items():
            yield "outlook_weight_ratio", (*labels, model), weight
        if measured.targets:
            yield "outlook_wape_ratio", labels, measured.wape
            yield "outlook_pinball", (*labels, "learned"), measured.pinball
            yield "outlook_pinball", (*labels, "last_value"), measured.pinball_last_value
            for quantile, share in zip(said.quantiles, measured.coverage, strict=False):
                yield "outlook_coverage_ratio", (*labels, f"{quantile:g}"), share


def _correction(status: Status, role: Role) -> RoleCorrection:
    learned = status.learned.correction
    return learned.prefill if role is Role.PREFILL else learned.decode


def _learned(labels: tuple[str, ...], role: RoleCorrection) -> Iterator[_Labelled]:
    """What was learned of the profile; an error only when there is one."""
    yield "profile_factor", labels, role.factor
    yield "profile_samples", (*labels, "taken"), role.samples
    yield "profile_samples", (*labels, "excluded"), role.excluded
    for of, error in (("profile", role.mape_before), ("learned", role.mape_after)):
        if error is not None:
            yield "profile_error_ratio", (*labels, of), error


def _scaled(value: Number, factor: float) -> Number:
    return value if isinstance(value, Missing) else value * factor
