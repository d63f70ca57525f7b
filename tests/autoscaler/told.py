"""One observation and one decision about it, with plain numbers: what a status tells of in this suite's tests."""

from __future__ import annotations

from autoscaler.core.conditions import conditions
from autoscaler.model import (
    Decision,
    Demand,
    Fleet,
    Forecast,
    Latency,
    Observation,
    RoleForecast,
    RoleSignals,
    Samples,
    Signals,
    State,
    Step,
    Target,
)
from policies.model import Code, Detail, Pair, Reason, Role, Stage
from tests.autoscaler.pages import role_fleet

NOW_S = 1_800_000_000.0


def reason(code: Code, role: Role | None = None, stage: Stage = Stage.DECIDE, **detail: str | float | int) -> Reason:
    return Reason(stage, code, role, detail)


def sized(prefill: int, decode: int, tokens_per_s: float = 5000.0) -> tuple[Reason, ...]:
    ask: Detail = {"tokens_per_s": tokens_per_s}
    return (
        Reason(Stage.SIZE, Code.SIZED_FOR_TTFT, Role.PREFILL, {"groups": prefill, **ask}),
        Reason(Stage.SIZE, Code.SIZED_FOR_ITL, Role.DECODE, {"groups": decode, **ask}),
    )


GROWTH = Reason(Stage.PLAN, Code.GROW, Role.DECODE, {"from": 1, "to": 3})


def an_observation(prefill: int = 1, decode: int = 1) -> Observation:
    """A service whose groups are all ready."""
    return Observation(NOW_S, Samples(), Fleet(role_fleet("prefill", prefill), role_fleet("decode", decode)))


def a_decision(
    target: Target | None = Target(Pair(1, 3), Pair(1, 2)),  # noqa: B008
    step: Step | None = Step("replicas", Role.DECODE, 1, 3),  # noqa: B008
    why: tuple[Reason, ...] = (*sized(1, 3), GROWTH),
    tokens_per_s: float = 5032.0,
) -> Decision:
    """Decode grows to three groups, as the demand asks."""
    demand = Demand(NOW_S, 15.0, 5.0, tokens_per_s, 1284.0, 1006.4, 256.8)
    signals = RoleSignals(2.0, 0.0, 0.0, 0.4, 8.0, False)
    latency = Latency(640.0, 0.98, "router")
    forecast = Forecast(
        RoleForecast(8.2, 0.9, tokens_per_s, tokens_per_s * 1.2, 1006.4), RoleForecast(8.2, 0.9, 1284.0, 1490.0, 256.8)
    )
    return Decision(
        state=State(),
        target=target,
        step=step,
        why=why,
        conditions=conditions(why),
        signals=Signals(demand, latency, latency, signals, signals),
        forecast=forecast,
    )
