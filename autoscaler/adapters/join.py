"""Pages joined to pods: what a pod's page says becomes its sample, or one reason why it does not. Pure.

Rules:
1. A page belongs to the pod (by UID) that answered, the pod to its TP group and role by its labels. A page whose kind
   or own role does not fit the label is a problem with a name, never a sample.
2. Where a model is wanted, only its series count. A router's page that names no model counts; an engine's does not.
3. A signal that is not what it is called (an ITL of chunks) is missing, with that reason.
4. A pod that is not its group's leader need not answer: it is a failure only if it did before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from autoscaler.adapters.pages import FAMILIES, Distribution, Page, Signals
from autoscaler.adapters.pages.read import understand
from autoscaler.adapters.pages.text import Exposition, Labels
from autoscaler.model import Histogram, Number, RouterSample, Samples, TokensAt, WorkerSample
from kubeapi import names
from policies.model import Missing, Role

FRONTS = ("router", "gateway", "frontend")

# Counted when a request arrives and while its tokens pass; all other fronts count when it has ended.
_AT_ARRIVAL = frozenset(("roleratio-router",))
# Prompt tokens are counted with the first token, so that TTFT has as many observations as there were prompts. All
# others count them when a request has finished.
_AT_FIRST_TOKEN = frozenset(("vllm", "ray-vllm", "aibrix-runtime", "llm-d-inference-sim", "dynamo"))
_MODEL_LABELS = frozenset(label for family in FAMILIES for label in family.models)


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """A pod that has metrics: a router, or a pod of a TP group. `start_s`: its start, `ready_s`: when it became ready.

    A sample from before `start_s` is of another pod that bore the name.
    """

    pod: str
    uid: str
    role: Literal["router", "prefill", "decode"]
    url: str = ""
    group: str = ""
    leader: bool = True
    start_s: float = 0.0
    ready_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Read:
    """A page, and when it was said."""

    page: Page
    at_s: float


Reading = Read | str
"""What one source gave, or why it gave nothing."""


class Joiner:
    """Makes samples of one service's pages. It remembers which pods have been read."""

    def __init__(self, model: str | None = None) -> None:
        self.model = model
        self._read: set[str] = set()

    def samples(self, readings: Mapping[ScrapeTarget, Reading], service: str) -> Samples:
        """Every reading in exactly one place: a sample, a failure, or a rank that has never answered."""
        routers: list[RouterSample] = []
        workers: list[WorkerSample] = []
        failures: dict[str, str] = {}
        models: Counter[str] = Counter()
        for target, reading in sorted(readings.items(), key=lambda item: item[0].pod):
            found = reading if isinstance(reading, str) else _sample(reading, target, service, self.model)
            if isinstance(reading, Read) and reading.page.kind == "engine":
                models.update(reading.page.models)
            if isinstance(found, RouterSample):
                routers.append(found)
            elif isinstance(found, WorkerSample):
                workers.append(found)
            elif target.leader or target.uid in self._read:
                failures[target.pod] = found
        read = {router.uid for router in routers} | {worker.uid for worker in workers}
        self._read = (self._read & {target.uid for target in readings}) | read
        return Samples(tuple(routers), tuple(workers), failures, models=dict(sorted(models.items())))


def page_for(exposition: Exposition, model: str | None) -> Page:
    """A page from its series; of several models on it, only the one that is wanted. All their names are kept."""
    page = understand(exposition)
    if model is None or len(page.models) < 2 or model not in page.models:
        return page
    series = {
        name: {labels: value for labels, value in each.items() if _is_of(labels, model)}
        for name, each in exposition.series.items()
    }
    wanted = replace(exposition, series={name: each for name, each in series.items() if each})
    return replace(understand(wanted), models=page.models)


def _is_of(labels: Labels, model: str) -> bool:
    """Whether a series names the model, or none."""
    named = {value for label, value in labels if label in _MODEL_LABELS and value}
    return not named or model in named


def _sample(read: Read, target: ScrapeTarget, service: str, model: str | None) -> RouterSample | WorkerSample | str:
    page = read.page
    if wrong := _misfit(page, target, model):
        return f"page {wrong}"
    if target.role != "router":
        return _worker(page, target, read.at_s)
    said = _of_service(page, service)
    return said if isinstance(said, str) else _router(page, said, target, read.at_s)


def _misfit(page: Page, target: ScrapeTarget, model: str | None) -> str:
    """Why a page is not one of this pod's role and the wanted model, or nothing."""
    label = f"the pod's label {names.LABEL_ROLE} says {target.role}"
    if page.kind == "none":
        return f"is not understood: {page.problem}"
    if target.role == "router" and page.kind not in FRONTS:
        return f"is one of an engine ({page.engine}), but {label}"
    if target.role != "router" and page.kind in FRONTS:
        return f"is one of a {page.kind} ({page.engine}), but {label}"
    if target.role != "router" and page.role_basis == "label" and page.role not in (None, "both", target.role):
        return f"says that the engine ({page.engine}) does {page.role}, but {label}"
    named = model is None or model in page.models or (target.role == "router" and not page.models)
    return "" if named else f"is of model {' and '.join(page.models) or 'without a name'}, not {model}"


def _of_service(page: Page, service: str) -> Signals | str:
    """What a front says of one service: our own router names them, others speak for the one they stand before."""
    units = {"/".join(unit.id.values()): unit.signals for unit in page.units}
    if page.engine not in _AT_ARRIVAL:
        return page.totals
    said = units.get(service) or units.get(service.rpartition("/")[2])
    return said or f"page is one of a router of {', '.join(sorted(units))}, not of {service}"


def _router(page: Page, said: Signals, target: ScrapeTarget, at_s: float) -> RouterSample:
    finished, failed = said.finished_total, said.failed_total
    if not isinstance(finished, Missing) and not isinstance(failed, Missing):
        finished = max(0.0, finished - failed)
    tokens_at: TokensAt = "arrival" if page.engine in _AT_ARRIVAL else "end"
    in_flight: Mapping[str, float] | Missing
    if isinstance(said.in_flight, Missing):
        in_flight = said.in_flight
    elif isinstance(said.in_flight_by_stage, Missing) or tokens_at == "end":
        in_flight = {"all": said.in_flight}
    else:
        in_flight = said.in_flight_by_stage
    return RouterSample(
        uid=target.uid,
        pod=target.pod,
        at_s=at_s,
        arrivals=said.arrivals_total,
        prompt_tokens=said.prompt_tokens_total,
        prompts=_prompts(page, said),
        cached_tokens=said.prompt_tokens_cached_total,
        generation_tokens=said.generation_tokens_total,
        finished=finished,
        failed=failed,
        ttft=_times(page, "ttft", said),
        itl=_times(page, "itl", said),
        tokens_at=tokens_at,
        in_flight=in_flight,
        engine=page.engine or "",
        series=page.series,
        start_s=target.start_s,
        ready_s=target.ready_s,
    )


def _worker(page: Page, target: ScrapeTarget, at_s: float) -> WorkerSample:
    said = page.totals
    return WorkerSample(
        uid=target.uid,
        pod=target.pod,
        role=Role(target.role),
        group=target.group or target.uid,
        leader=target.leader,
        at_s=at_s,
        engine=page.engine or "",
        series=page.series,
        engines=max(1, len(page.units)),
        ranks=tuple(sorted(",".join(f"{key}={value}" for key, value in unit.id.items()) for unit in page.units)),
        running=said.running,
        waiting=said.waiting,
        waiting_by_reason=said.waiting_by_reason,
        in_flight=_in_flight(said),
        kv_usage=said.kv_usage,
        kv_usage_max=said.kv_usage_max,
        kv_capacity_tokens=said.kv_capacity_tokens,
        preemptions=said.preemptions_total,
        arrivals=said.arrivals_total,
        prompt_tokens=said.prompt_tokens_total,
        prompts=_prompts(page, said),
        cached_tokens=said.prompt_tokens_cached_total,
        generation_tokens=said.generation_tokens_total,
        finished=said.finished_total,
        ttft=_times(page, "ttft", said),
        itl=_times(page, "itl", said),
        queue_time=_times(page, "queue_time", said),
        start_s=target.start_s,
        ready_s=target.ready_s,
    )


def _in_flight(said: Signals) -> Number:
    """All that an engine has accepted and not finished; queues of disaggregation are beside the two usual ones."""
    if not isinstance(said.in_flight, Missing):
        return said.in_flight
    if isinstance(said.running, Missing) or isinstance(said.waiting, Missing):
        return said.running if isinstance(said.running, Missing) else said.waiting
    queues = 0.0 if isinstance(said.disagg_queues, Missing) else sum(said.disagg_queues.values())
    return said.running + said.waiting + queues


def _prompts(page: Page, said: Signals) -> Number:
    first = said.ttft.count if isinstance(said.ttft, Distribution) else said.ttft
    early = page.engine in _AT_FIRST_TOKEN
    counts = (first, said.finished_total) if early else (said.finished_total, first)
    return next((count for count in counts if not isinstance(count, Missing)), counts[0])


def _times(page: Page, name: Literal["ttft", "itl", "queue_time"], said: Signals) -> Histogram | Missing:
    spread: Distribution | Missing = getattr(said, name)
    if name in page.cautions:
        return Missing(f"{page.engine}: {page.cautions[name]}")
    return spread if isinstance(spread, Missing) else spread.buckets
