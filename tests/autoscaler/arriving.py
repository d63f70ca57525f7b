"""A service whose arrivals a router counts, and the forecast at each tick: no workers, no sizes. For tests only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoscaler.core.forecast import STEP_S, forecast
from autoscaler.model import (
    COLUMNS,
    Decision,
    Demand,
    Forecast,
    Latency,
    Outlook,
    RoleForecast,
    RoleSignals,
    Signals,
    State,
    Totals,
)
from autoscaler.settings import Settings
from policies.model import ROLES, Missing, Role
from tests.autoscaler.plant import make_settings

PROMPT, ANSWER = 1000.0, 100.0
WIDTH = sum(len(columns) for columns in COLUMNS.values())
UNSEEN = Latency(Missing("not given"), Missing("not given"), "router")


class Service:
    """Arrivals as a router counts them, and the forecast at each tick."""

    def __init__(self, chosen: Settings | None = None, lead_s: tuple[float, float] = (60.0, 60.0)) -> None:
        self.settings = chosen or make_settings()
        self.roles = [RoleSignals(0.0, 0.0, 0.0, 0.0, cold_start_s, blind=False) for cold_start_s in lead_s]
        self.state = State(started_s=0.0)
        self.requests = 0.0
        self.outlook = Outlook()

    def tick(self, now_s: float, came: float, *, known: bool = True, answers: bool = True) -> dict[Role, RoleForecast]:
        """One look; `came`: requests since the last one. Without the roles that are missing."""
        self.requests += came
        row: list[float | None] = [None] * WIDTH
        columns = COLUMNS["router"]
        counted = {"arrivals": 1.0, "offered_tokens": PROMPT, "prompt_tokens": PROMPT, "prompts": 1.0}
        counted |= {"generation_tokens": ANSWER, "finished": 1.0} if answers else {}
        for count, per_request in counted.items():
            row[columns[count]] = self.requests * per_request if known else None  # type: ignore[index]
        self.state = replace(self.state, totals=(*self.state.totals, Totals(now_s, tuple(row)))[-60:])
        signals = self.signals(now_s, known, answers)
        found, self.state = forecast(self.state, signals, self.settings, now_s, self.outlook)
        asked = {role: found[role] for role in ROLES}
        return {role: ask for role, ask in asked.items() if not isinstance(ask, Missing)}

    def decision(self, now_s: float, known: bool = True) -> Decision:
        """What a tick would have made of the last look."""
        nothing = Missing("not asked for")
        signals = self.signals(now_s, known, known)
        return Decision(self.state, None, None, (), (), signals, Forecast(nothing, nothing))

    def signals(self, now_s: float, known: bool, answers: bool) -> Signals:
        prompts = (1.0, PROMPT, PROMPT) if known else (Missing("blind"),) * 3
        lengths = (ANSWER, ANSWER) if known and answers else (Missing("no answers counted"),) * 2
        basis = "router" if known else "none"
        demand = Demand(now_s, 10.0, prompts[0], prompts[1], lengths[0], prompts[2], lengths[1], basis=basis)  # type: ignore[arg-type]
        return Signals(demand, UNSEEN, UNSEEN, prefill=self.roles[0], decode=self.roles[1])

    def run(self, rates: Sequence[float], begin_s: float = 1000.0) -> dict[Role, RoleForecast]:
        """A tick a step: requests/s in each."""
        found = self.tick(begin_s, 0.0)
        for index, rate in enumerate(rates):
            found = self.tick(begin_s + (index + 1) * STEP_S, rate * STEP_S)
        return found

    def values(self, role: Role = Role.PREFILL) -> tuple[float | None, ...]:
        return self.state.courses[role].values
