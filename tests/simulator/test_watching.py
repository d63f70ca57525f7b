"""What the controller learns and notices in a simulated service: engines that are slow, and one that hangs."""

from __future__ import annotations

import pytest

from autoscaler.model import Decision, Observation
from perfmodel.correction import Correction, RoleCorrection, corrected
from policies.model import Code, Role
from simulator.ours import Ours
from simulator.port import Wanted
from simulator.scenario import Scenario
from tests.simulator.small import PROFILE, scenario, world


class Told(Ours):
    """Our controller, with all that it decided."""

    def __init__(self, one: Scenario) -> None:
        super().__init__(one.settings, PROFILE)
        self.decisions: list[Decision] = []

    def decide(self, seen: Observation) -> Wanted:
        wanted = super().decide(seen)
        assert self.last
        self.decisions.append(self.last)
        return wanted


@pytest.mark.parametrize("factor", [1.0, 1.4])
def test_slow_engines_are_found_out(factor: float) -> None:
    slow = corrected(PROFILE, Correction(RoleCorrection(factor), RoleCorrection(factor)))
    one = scenario(durationS=240)
    ours = Told(one)
    world(one, ours, profile=slow).run()
    learned = ours.state.learned.correction
    assert learned.decode.factor == pytest.approx(factor, rel=0.03)
    assert learned.prefill.factor == pytest.approx(factor, rel=0.05)


def test_an_engine_that_hangs_is_named_while_its_peers_move() -> None:
    one = scenario(
        durationS=150,
        fleet__decode__groups=2,
        autoscaler__decode__minGroups=2,
        faults=[{"kind": "engineHangs", "atS": 20, "role": "decode", "index": 0, "forS": 110}],
    )
    ours = Told(one)
    world(one, ours).run()
    stalled = [d.signals.decode.stalled for d in ours.decisions]
    first = next(index for index, names in enumerate(stalled) if names)
    # 60 s after its last token, at a tick a second.
    assert 78 <= first <= 90
    assert all(len(names) <= 1 for names in stalled)
    assert stalled[-1] == ()
    assert not any(d.signals.prefill.stalled for d in ours.decisions)
    named = {r.role for d in ours.decisions for r in d.why if r.code is Code.GROUP_STALLED}
    assert named == {Role.DECODE}
