"""Our controller as a policy: `tick` unchanged, the step that it plans carried out, its state handed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from autoscaler.core import tick
from autoscaler.model import Decision, Observation, Outlook, RoleFleet, Series, State, Step
from autoscaler.outlook import STEP_S, History, leads_s
from autoscaler.settings import Settings
from perfmodel.profile import Profile
from policies.model import Missing, Pair, Reason, Role
from simulator.arrivals import Request
from simulator.port import Wanted

STORED: tuple[Series, ...] = ("requests_per_s", "prompt_tokens_per_s", "output_tokens_per_s")


class Foresight(Protocol):
    """What forecasts beside the tick (`autoscaler.outlook` is ours)."""

    def say(self, now_s: float, leads: Mapping[Role, float]) -> Outlook:
        """What is foretold at this moment, for each role as far ahead as its groups take to start."""

    def see(self, decision: Decision) -> None:
        """What the tick has understood of what arrived. Told after every tick."""


def history(came: Iterable[Request], begin_s: float) -> History:
    """What a store would say of requests that came from `begin_s` on and before the moment 0."""
    steps = int(-begin_s / STEP_S)
    sums = {name: [0.0] * steps for name in STORED}
    for at_s, prompt_tokens, output_tokens in came:
        step = int((at_s - begin_s) / STEP_S)
        if 0 <= step < steps:
            for name, more in zip(STORED, (1, prompt_tokens, output_tokens), strict=True):
                sums[name][step] += more / STEP_S
    return {
        name: [(begin_s + (step + 0.5) * STEP_S, value) for step, value in enumerate(values)]
        for name, values in sums.items()
        if steps
    }


class Ours:
    """`settings` must be of the mode Active, or nothing is carried out."""

    def __init__(
        self, settings: Settings, profile: Profile, name: str = "ours", foresight: Foresight | None = None
    ) -> None:
        self.name = name
        self.state = State()
        self.last: Decision | None = None
        self._settings = settings
        self._profile = profile
        self._foresight = foresight

    def decide(self, seen: Observation) -> Wanted:
        """One tick."""
        if self._foresight is not None:
            seen = replace(seen, outlook=self._foresight.say(seen.now_s, leads_s(self._settings, self.last)))
        self.last = tick(self.state, seen, self._settings, self._profile)
        if self._foresight is not None:
            self._foresight.see(self.last)
        self.state = self.last.state
        step = self.last.step
        if step is None or not self._settings.spec.writes:
            return Wanted()
        why = tuple(str(reason) for reason in self.last.why if _is_of(reason, step))
        if step.kind == "replicas":
            return Wanted(groups=_replicas(seen).with_role(step.role, step.after), why=why)
        return Wanted(minimum_pods=_minimums(seen).with_role(step.role, step.after), why=why)


def _is_of(reason: Reason, step: Step) -> bool:
    return reason.role is None or reason.role is step.role


def _replicas(seen: Observation) -> Pair:
    return Pair(*(fleet.replicas if isinstance(fleet, RoleFleet) else 0 for fleet in _fleets(seen)))


def _minimums(seen: Observation) -> Pair:
    minimums = (fleet.min_pods if isinstance(fleet, RoleFleet) else 0 for fleet in _fleets(seen))
    return Pair(*(0 if isinstance(pods, Missing) else pods for pods in minimums))


def _fleets(seen: Observation) -> tuple[RoleFleet | Missing, RoleFleet | Missing]:
    return seen.fleet.prefill, seen.fleet.decode
