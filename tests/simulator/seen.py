"""Observations made by hand, for the baselines: what each group and the router say. For tests only."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.model import Fleet, Group, Observation, RoleFleet, RouterSample, Samples, WorkerSample
from perfmodel.profile import load_profile
from policies.model import ROLES, Missing, Pair, Role
from simulator.policies.view import Service

NOT = Missing("not on this page")
PROFILE = load_profile()
KV = 100_000.0
SERVICE = Service(
    profiles=dict.fromkeys(ROLES, PROFILE),
    ttft_ms=2000.0,
    itl_ms=60.0,
    minimum=Pair(1, 1),
    maximum=Pair(50, 50),
    gpus_per_group=Pair(2, 2),
    budget_gpus=200,
)


@dataclass(frozen=True)
class Busy:
    """The gauges of one ready group; None: its page cannot be read."""

    waiting: float = 0.0
    running: float = 0.0
    kv_usage: float = 0.0


@dataclass(frozen=True)
class Came:
    """The router's counters: requests since its start, each of the same lengths; all that came has finished."""

    requests: float = 0.0
    prompt_tokens: float = 1000.0
    output_tokens: float = 200.0
    held: float = 0.0


def fleet(role: Role, ready: int, replicas: int) -> RoleFleet:
    groups = tuple(Group(f"{role}-{index}", (f"{role}-{index}-pod",), ready=index < ready) for index in range(replicas))
    return RoleFleet("Deployment", "ns", str(role), str(role), 0.0, replicas, ready, replicas, 1, 2, 99, groups=groups)


def seen(
    now_s: float,
    prefill: list[Busy | None],
    decode: list[Busy | None],
    came: Came = Came(),
    asked: Pair | None = None,
) -> Observation:
    """One look at a fleet of so many ready groups; `asked`: groups asked for, where that is more."""
    workers, fleets = [], {}
    for role, groups in ((Role.PREFILL, prefill), (Role.DECODE, decode)):
        fleets[role] = fleet(role, len(groups), asked[role] if asked else len(groups))
        workers += [
            WorkerSample(
                uid=f"{role}-{index}",
                pod=f"{role}-{index}-pod",
                role=role,
                group=f"{role}-{index}",
                at_s=now_s,
                running=busy.running,
                waiting=busy.waiting,
                waiting_by_reason=NOT,
                kv_usage=busy.kv_usage,
                prompt_tokens=NOT,
                generation_tokens=NOT,
                finished=NOT,
                ttft=NOT,
                itl=NOT,
                kv_capacity_tokens=KV,
            )
            for index, busy in enumerate(groups)
            if busy is not None
        ]
    router = RouterSample(
        uid="router",
        pod="router",
        at_s=now_s,
        arrivals=came.requests,
        prompt_tokens=came.requests * came.prompt_tokens,
        generation_tokens=came.requests * came.output_tokens,
        finished=came.requests,
        failed=0.0,
        ttft=NOT,
        itl=NOT,
        prompts=came.requests,
        in_flight={"unassigned": came.held},
    )
    samples = Samples(routers=(router,), workers=tuple(workers))
    return Observation(now_s, samples, Fleet(fleets[Role.PREFILL], fleets[Role.DECODE]))
