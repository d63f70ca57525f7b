"""Our controller as a policy: `tick` unchanged, the step that it plans carried out, its state handed on."""

from __future__ import annotations

from autoscaler.core import tick
from autoscaler.model import Decision, Observation, RoleFleet, State, Step
from autoscaler.settings import Settings
from perfmodel.profile import Profile
from policies.model import Missing, Pair, Reason
from simulator.port import Wanted


class Ours:
    """`settings` must be of the mode Active, or nothing is carried out."""

    def __init__(self, settings: Settings, profile: Profile, name: str = "ours") -> None:
        self.name = name
        self.state = State()
        self.last: Decision | None = None
        self._settings = settings
        self._profile = profile

    def decide(self, seen: Observation) -> Wanted:
        """One tick."""
        self.last = tick(self.state, seen, self._settings, self._profile)
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
