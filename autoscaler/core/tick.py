"""tick: observe -> forecast -> size -> decide -> plan. The one function that every driver calls."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.core.conditions import conditions
from autoscaler.core.decide import Managed, decide
from autoscaler.core.forecast import forecast
from autoscaler.core.observe import observe
from autoscaler.core.plan import plan
from autoscaler.core.size import size
from autoscaler.model import Decision, Observation, RoleFleet, State
from autoscaler.settings import Settings
from perfmodel.profile import Profile
from policies.model import ROLES, Code, Missing, Reason, Stage


def tick(state: State, observation: Observation, settings: Settings, profile: Profile) -> Decision:
    """Decide once. Equal inputs give equal decisions; an exception means a bug.

    Linear in the samples and in the kept history, independent of the cluster's size.
    """
    observed = observe(state, observation, settings)
    state, signals = observed.state, observed.signals
    if state.started_s is None and state.totals:
        state = replace(state, started_s=observation.now_s)
    expected = forecast(state, signals, settings, observation.now_s)
    fleet = observation.fleet
    if not isinstance(fleet.prefill, RoleFleet) or not isinstance(fleet.decode, RoleFleet):
        why = (*observed.why, *_absent(observation))
        return Decision(state, None, None, why, conditions(why), signals, expected)
    managed = Managed(fleet.prefill, fleet.decode)
    sized = size(signals, expected, settings, profile)
    decided = decide(state, observation, managed, signals, sized, settings)
    (step, plan_why), state = plan(decided.target, managed, decided.state, settings, observation.now_s)
    why = (*observed.why, *sized.why, *decided.why, *plan_why)
    return Decision(state, decided.target, step, why, conditions(why), signals, expected)


def _absent(observation: Observation) -> tuple[Reason, ...]:
    return tuple(
        Reason(Stage.OBSERVE, Code.NO_WORKLOAD, role, {"why": gone.missing})
        for role in ROLES
        if isinstance(gone := observation.fleet[role], Missing)
    )
