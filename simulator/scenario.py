"""A scenario file: what comes, the fleet it meets, and who scales it. One pydantic model with units in its names.

Rules:
1. Keys are camelCase, as in a RoleRatioAutoscaler, whose `spec` is the key `autoscaler`. An unknown key is an error;
   all problems are told at once.
2. A time that varies is a number, `{medianS, sigma}` (log-normal) or `{valuesS: [...]}` (one of those measured).
3. Nothing here opens a file: traces are named, and opened by whoever runs the scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from autoscaler.errors import UserError
from autoscaler.settings import Metadata, Model, Settings, Spec, problem_line
from policies.model import Role
from simulator.arrivals import LogNormal
from simulator.cluster import Nodes, Shape
from simulator.rng import Rng
from simulator.router import Bind, Routing


class Time(Model):
    """Seconds that may vary: exactly one of the three."""

    constant_s: float | None = Field(None, ge=0)
    """Always the same."""
    median_s: float | None = Field(None, gt=0)
    """Of a log-normal distribution."""
    sigma: float = Field(0.5, ge=0)
    """Its spread: the standard deviation of the logarithm."""
    values_s: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Measured ones, each as likely."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.constant_s is not None) + (self.median_s is not None) + bool(self.values_s) != 1:
            raise ValueError("expected a number of seconds, or one of medianS (with sigma) and valuesS")
        return self

    def draw(self, rng: Rng) -> float:
        """One time, in seconds."""
        if self.constant_s is not None:
            return self.constant_s
        if self.values_s:
            return self.values_s[int(rng.random() * len(self.values_s))]
        return rng.lognormvariate(log(self.median_s or 1.0), self.sigma)

    @property
    def typical_s(self) -> float:
        """The median."""
        if self.values_s:
            return sorted(self.values_s)[len(self.values_s) // 2]
        return self.constant_s if self.constant_s is not None else self.median_s or 0.0


def _as_time(value: Any) -> Any:
    return {"constantS": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Seconds = Annotated[Time, BeforeValidator(_as_time)]
NOTHING = Time(constant_s=0.0)


class Tokens(Model):
    """Token counts of a mean, log-normal, clipped."""

    mean: float = Field(ge=1)
    """Their mean before clipping."""
    sigma: float = Field(0.5, ge=0)
    """The standard deviation of the logarithm; 0: all the same."""
    low: int = Field(1, ge=1)
    """Fewest tokens."""
    high: int = Field(100_000, ge=1)
    """Most tokens, of a phase with factor 1."""

    @property
    def distribution(self) -> LogNormal:
        """To draw from."""
        return LogNormal(self.mean, self.sigma, self.low, self.high)


class Step(Model):
    """A phase of the load: a share of the duration, with factors on rate and means."""

    name: str = Field(min_length=1)
    """What the report calls it."""
    share: float = Field(gt=0)
    """Its share of the duration; shares are taken relative to their sum."""
    rate_factor: float = Field(1.0, ge=0)
    """Times the rate."""
    prompt_factor: float = Field(1.0, gt=0)
    """Times the mean prompt."""
    output_factor: float = Field(1.0, gt=0)
    """Times the mean output."""


class Wave(Model):
    """A rate that goes up and down as a sine, in place of a constant one."""

    low_rps: float = Field(ge=0)
    """The lowest rate."""
    high_rps: float = Field(gt=0)
    """The highest rate."""
    period_s: float = Field(gt=0)
    """From one peak to the next."""


class Client(Model):
    """One source of requests, a renewal process."""

    process: Literal["poisson", "gamma", "weibull"] = "poisson"
    """How the gaps between requests are distributed."""
    cv: float = Field(1.0, ge=0.05, le=50)
    """Their coefficient of variation (gamma, weibull): above 1 is bursty."""
    rate_rps: float | None = Field(None, gt=0)
    """Requests per second; or a wave."""
    wave: Wave | None = None
    """A rate that rises and falls."""
    prompt: Tokens
    """Prompt tokens."""
    output: Tokens
    """Output tokens."""

    @model_validator(mode="after")
    def _has_a_rate(self) -> Self:
        if (self.rate_rps is None) == (self.wave is None):
            raise ValueError("expected exactly one of rateRps and wave")
        return self


class TraceLoad(Model):
    """A recorded trace: an Azure CSV or a Mooncake JSONL."""

    file: str = Field(min_length=1)
    """Its path, relative to the scenario file."""
    start_s: float = Field(0.0, ge=0)
    """Where in it to begin."""
    speed: float = Field(1.0, gt=0)
    """How many times as fast."""
    copies: int = Field(1, ge=1)
    """How many times each request comes."""
    within_s: float = Field(0.0, ge=0)
    """Each copy comes within so many seconds of its time, before or after."""


class ServeGenLoad(Model):
    """Production demand per client (ServeGen)."""

    windows: str = Field(min_length=1)
    """Path of the client windows, relative to the scenario file."""
    lengths: str = Field(min_length=1)
    """Path of the clients' lengths."""
    start_s: float = Field(0.0, ge=0)
    """Where in it to begin."""
    scale: float = Field(1.0, gt=0)
    """How much of the demand comes."""
    length_factor: float = Field(1.0, gt=0)
    """Times all lengths: a large fleet for fewer requests."""
    stretch: bool = False
    """Keep each client's burstiness in counts, rather than thin its requests."""


class MeasuredLoad(Model):
    """Demand that was measured as rates; `roleratio backtest` writes such a file."""

    file: str = Field(min_length=1)
    """Its path, relative to the scenario file."""
    process: Literal["poisson", "gamma"] = "poisson"
    """How the gaps between requests are distributed."""
    cv: float = Field(1.0, ge=0.05, le=50)
    """Their coefficient of variation (gamma): above 1 is bursty."""
    sigma: float = Field(1.0, ge=0)
    """Of the logarithm of lengths, whose means are measured; 0: all the same."""


class Load(Model):
    """What comes: exactly one of these."""

    demo: bool = False
    """The built-in workload of `roleratio demo`, in its four phases."""
    trace: TraceLoad | None = None
    """A recorded trace."""
    servegen: ServeGenLoad | None = None
    """Production demand per client."""
    measured: MeasuredLoad | None = None
    """Demand that was measured as rates."""
    clients: tuple[Client, ...] = ()
    """Sources made up of distributions."""
    phases: tuple[Step, ...] = ()
    """Phases of the clients, one after the other."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        files = (self.trace, self.servegen, self.measured)
        if sum([self.demo, bool(self.clients), *(file is not None for file in files)]) != 1:
            raise ValueError("expected exactly one of demo, trace, servegen, measured and clients")
        if self.phases and not self.clients:
            raise ValueError("phases are of clients: give clients, or leave phases out")
        return self


class NodesModel(Model):
    """The cluster's nodes, all of one kind."""

    count: int = Field(ge=0)
    """Nodes at the start."""
    gpus: int = Field(ge=1)
    """GPUs of each."""
    per_rack: int = Field(8, ge=1)
    """Nodes of one rack."""
    most: int = Field(0, ge=0)
    """Up to how many nodes are provided when pods wait for room; 0: none."""
    provision_s: Seconds = Time(constant_s=180.0)
    """How long a provided node takes to come."""
    idle_s: float = Field(600.0, ge=0)
    """A provided node goes when it was empty for so long."""

    @property
    def nodes(self) -> Nodes:
        """For the cluster."""
        return Nodes(self.count, self.gpus, self.per_rack, self.most, self.idle_s)


class RoleModel(Model):
    """One role of the fleet."""

    groups: int = Field(1, ge=0)
    """TP groups that are ready at the start."""
    pods_per_group: int = Field(1, ge=1)
    """Pods of one TP group."""
    gpus: int | None = Field(None, ge=1)
    """GPUs of one TP group, where the role's engines are not as wide as the profile says."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Sequences that one engine runs at once, where that is below the profile's limit."""
    kind: Literal["LeaderWorkerSet", "Deployment"] = "LeaderWorkerSet"
    """The workload's kind."""


class FleetModel(Model):
    """The fleet that the load meets."""

    profile: str | None = None
    """How fast engines really are; without it as the autoscaler's profile says."""
    nodes: NodesModel
    """Where pods can go."""
    prefill: RoleModel = RoleModel()
    """The prefill role."""
    decode: RoleModel = RoleModel()
    """The decode role."""
    drain_limit_s: float = Field(110.0, ge=0)
    """A group that drains is cut after so long."""
    aggregated: bool = False
    """Decode groups prefill as well; there is no hand-over, and prefill groups get nothing."""

    def role(self, role: Role) -> RoleModel:
        """One role's part."""
        return self.prefill if role is Role.PREFILL else self.decode


class StartModel(Model):
    """What a TP group needs to become ready, one after the other."""

    scheduling_s: Seconds = NOTHING
    """From the decision of the scheduler until its pods are started."""
    image_s: Seconds = NOTHING
    """Pulling the image."""
    load_s: Seconds = Time(constant_s=120.0)
    """Loading weights."""
    warm_up_s: Seconds = NOTHING
    """Graphs, caches, the first probe."""

    @property
    def parts(self) -> tuple[Time, ...]:
        """All of it."""
        return (self.scheduling_s, self.image_s, self.load_s, self.warm_up_s)

    @property
    def typical_s(self) -> float:
        """The sum of the medians."""
        return sum(part.typical_s for part in self.parts)


class RouterModel(Model):
    """How the router binds requests."""

    bind: Bind = "late"
    """late: a prompt waits in the router until a prefill group has room; arrival: it is bound in turn as it comes;
    turn: so is it to decode, where else the group with the fewest sequences gets it."""
    ahead_tokens: int = Field(4096, ge=1)
    """A prefill group with fewer prompt tokens to compute has room."""
    max_wait_s: float = Field(60.0, gt=0)
    """How long a request waits while no group of a role is ready."""
    lease_s: float = Field(60.0, gt=0)
    """How long computed KV waits to be pulled."""

    def routing(self, aggregated: bool) -> Routing:
        """For the router."""
        return Routing(self.bind, self.ahead_tokens, self.max_wait_s, self.lease_s, aggregated)


class ScrapeModel(Model):
    """How old metrics are when the policy sees them."""

    interval_s: float = Field(0.0, ge=0)
    """Pages are read so often; 0: for every decision."""
    delay_s: float = Field(0.0, ge=0)
    """What was read is seen so much later."""


class GroupDies(Model):
    """A TP group ends at once, with all that it had; it is made again."""

    kind: Literal["groupDies"]
    at_s: float = Field(ge=0)
    role: Role
    index: int = Field(0, ge=0)
    """Which of the role's groups that are there, by age."""


class NodeLost(Model):
    """A node is lost, with all groups that have a pod on it."""

    kind: Literal["nodeLost"]
    at_s: float = Field(ge=0)
    node: int = Field(0, ge=0)
    """Which of the nodes of the start."""
    for_s: float = Field(600.0, gt=0)
    """How long it is away."""


class EngineHangs(Model):
    """An engine takes requests, keeps what it has and gets nowhere, until its pods are restarted."""

    kind: Literal["engineHangs"]
    at_s: float = Field(ge=0)
    role: Role
    index: int = Field(0, ge=0)
    """Which of the role's ready groups, by age."""
    for_s: float = Field(120.0, gt=0)
    """After so long it dies."""


class ScrapeFails(Model):
    """A page cannot be read, though its process works."""

    kind: Literal["scrapeFails"]
    at_s: float = Field(ge=0)
    role: Literal["prefill", "decode", "router"]
    index: int | None = Field(None, ge=0)
    """Which of the role's ready groups, by age; without it, all of them."""
    for_s: float = Field(120.0, gt=0)
    """For how long."""


Fault = Annotated[GroupDies | NodeLost | EngineHangs | ScrapeFails, Field(discriminator="kind")]


class Scenario(Model):
    """One run, up to the policy and the seed."""

    name: str = Field(min_length=1)
    """What tables and reports call it."""
    duration_s: float = Field(gt=0)
    """How long requests come."""
    tail_s: float = Field(300.0, ge=0)
    """How long the run waits for the last ones to end; what is open then is unfinished."""
    history_s: float = Field(0.0, ge=0)
    """How much of what came before its begin (of ServeGen's demand) is stored, as in a Prometheus, to learn from."""
    seed: int = Field(7, ge=0)
    """Of everything that is drawn, unless the command line gives one."""
    load: Load
    """What comes."""
    fleet: FleetModel
    """The fleet that it meets."""
    start: StartModel = StartModel()
    """How long groups take to start."""
    router: RouterModel = RouterModel()
    """The way of a request."""
    scrape: ScrapeModel = ScrapeModel()
    """The way of metrics."""
    autoscaler: Spec
    """The spec of a RoleRatioAutoscaler: SLO, bounds, budget, behaviour; its service and mode may be left out."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong, and when."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """What a simulated service need not say."""
        if isinstance(data, Mapping) and isinstance(data.get("autoscaler"), Mapping):
            spec = {"service": "simulated", "mode": "Active", **data["autoscaler"]}
            return {**data, "autoscaler": spec}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for role in Role:
            limit = self.autoscaler.role(role).max_groups
            if self.fleet.role(role).groups > limit:
                raise ValueError(
                    f"fleet.{role}.groups {self.fleet.role(role).groups} is above autoscaler.{role}.maxGroups {limit}: "
                    "lower it, or raise maxGroups"
                )
        return self

    @property
    def settings(self) -> Settings:
        """The object that our controller would follow."""
        return Settings(metadata=Metadata(name=self.autoscaler.service), spec=self.autoscaler)

    def shape(self, role: Role, gpus_per_group: int) -> Shape:
        """One TP group, as wide as the role says, else as its profile.

        Raises UserError where its GPUs cannot be shared out over its pods.
        """
        pods, own = self.fleet.role(role).pods_per_group, self.fleet.role(role).gpus
        gpus = own or gpus_per_group
        if gpus % pods:
            whose = "the role's" if own else "the profile's"
            raise UserError(
                f"scenario {self.name}: fleet.{role}.podsPerGroup {pods}: expected a divisor of {whose} "
                f"{gpus} GPUs per group"
            )
        return Shape(pods, gpus // pods)


def parse_scenario(data: Any, source: str) -> Scenario:
    """Validate a parsed file; `source` names it in errors. Raises UserError with all problems."""
    if not isinstance(data, dict):
        raise UserError(
            f"{source}: expected a scenario (name, durationS, load, fleet, autoscaler), found {_kind(data)}"
        )
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise UserError(*(problem_line(source, problem) for problem in error.errors())) from error


def _kind(data: Any) -> str:
    return "nothing" if data is None else type(data).__name__
