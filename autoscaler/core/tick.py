"""tick: observe -> watch and learn -> forecast -> size -> decide -> plan. The one function that every driver calls."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.core.conditions import conditions
from autoscaler.core.decide import decide
from autoscaler.core.forecast import forecast
from autoscaler.core.holds import Managed
from autoscaler.core.learn import believed, learn
from autoscaler.core.observe import observe
from autoscaler.core.plan import plan
from autoscaler.core.size import size
from autoscaler.core.stalled import watch
from autoscaler.model import Decision, Observation, RoleFleet, State
from autoscaler.settings import Settings
from perfmodel.profile import Profile
from policies.model import ROLES, Code, Missing, Reason, Stage


def tick(state: State, observation: Observation, settings: Settings, profile: Profile) -> Decision:
    """Decide once. Equal inputs give equal decisions; an exception means a bug.

    Linear in the samples and in the kept history, independent of the cluster's size.
    """
    before = state
    observed = observe(state, observation, settings)
    state, signals, watched = watch(observed.state, observation, observed.signals, settings, profile)
    state = learn(before, state, observation, signals, profile)
    if state.started_s is None and state.totals:
        state = replace(state, started_s=observation.now_s)
    expected, state = forecast(state, signals, settings, observation.now_s, observation.outlook)
    fleet = observation.fleet
    if not isinstance(fleet.prefill, RoleFleet) or not isinstance(fleet.decode, RoleFleet):
        why = (*observed.why, *watched, *_absent(observation))
        return Decision(state, None, None, why, conditions(why), signals, expected)
    managed = Managed(fleet.prefill, fleet.decode)
    sized = size(state, observation, signals, expected, settings, believed(profile, state))
    decided = decide(state, observation, managed, signals, expected, sized, settings)
    (step, plan_why), state = plan(decided.target, managed, decided.state, signals, settings, observation.now_s)
    why = (*observed.why, *watched, *sized.why, *decided.why, *plan_why)
    return Decision(state, decided.target, step, why, conditions(why), signals, expected)


def _absent(observation: Observation) -> tuple[Reason, ...]:
    return tuple(
        Reason(Stage.OBSERVE, Code.NO_WORKLOAD, role, {"why": gone.missing})
        for role in ROLES
        if isinstance(gone := observation.fleet[role], Missing)
    )
