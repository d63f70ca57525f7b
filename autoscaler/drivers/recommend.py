"""The recommender: a dry run of a few ticks, told as a table or as data. Writes nothing to the cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from autoscaler.adapters.act import patch_for
from autoscaler.drivers.live import ControllerOptions, run
from autoscaler.errors import UserError
from autoscaler.model import Decision, Observation, RoleFleet
from policies.model import ROLES, Code, Missing, Role, Stage

SIZED = (Code.SIZED_FOR_TTFT, Code.SIZED_FOR_ITL)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The last look and the decision it led to."""

    observation: Observation
    decision: Decision

    def rows(self) -> list[dict[str, Any]]:
        """One plain row per role; what is not known is None and explained in `why`."""
        return [self._row(role) for role in ROLES]

    def data(self) -> dict[str, Any]:
        """The whole recommendation as plain data."""
        decision = self.decision
        return {
            "roles": self.rows(),
            "patch": self._patch(),
            "conditions": [
                {"type": c.type, "status": c.status, "reason": c.reason, "message": c.message}
                for c in decision.conditions
            ],
            "why": [str(reason) for reason in decision.why],
        }

    def _row(self, role: Role) -> dict[str, Any]:
        fleet, decision = self.observation.fleet[role], self.decision
        sized = [r.detail["groups"] for r in decision.why if r.role is role and r.code in SIZED]
        why = [str(r) for r in decision.why if r.role is role and r.stage in (Stage.SIZE, Stage.DECIDE, Stage.PLAN)]
        row: dict[str, Any] = {"role": role.value, "current": None, "ready": None, "min_count_pods": None}
        if isinstance(fleet, RoleFleet):
            minimum = None if isinstance(fleet.min_pods, Missing) else fleet.min_pods
            row |= {"current": fleet.replicas, "ready": fleet.ready, "min_count_pods": minimum}
        row["needed"] = sized[0] if sized else None
        target = decision.target if decision.target and decision.target.desires(role) else None
        row["recommended"] = target.groups[role] if target else None
        row["floor"] = target.floor[role] if target else None
        return {**row, "why": why}

    def _patch(self) -> str | None:
        step = self.decision.step
        if step is None:
            return None
        fleet = self.observation.fleet[step.role]
        assert isinstance(fleet, RoleFleet)
        return str(patch_for(step, fleet))


async def recommend(options: ControllerOptions) -> Recommendation:
    """Look until the demand is known, or for one whole window; then say what would be done."""
    last: list[Recommendation] = []

    def keep(observation: Observation, decision: Decision) -> None:
        last[:] = [Recommendation(observation, decision)]

    await run(replace(options, dry_run=True, once=True, port=None, journal=None), keep)
    if not last:
        raise UserError("recommend: stopped before the first look at the cluster; let it run")
    return last[0]
