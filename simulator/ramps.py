"""Ramps: how many of the groups that a rise of the demand needs were asked for one cold start before they were needed.

What the oracle asks for (`oracle.ahead`) rises exactly where a group has to be started, whoever knows all; each rise is
a ramp, and each group of it is started once. Rules:
1. A group is needed from one cold start after its rise until the oracle lets it go. Gaps of up to one cold start are
   none: nobody can start anything in them.
2. The k-th group serves where k groups have been asked for without a break for one cold start. It was started ahead if
   it serves when it is needed; else it is late until it does, at most as long as it is needed.
3. Groups that are needed within the first cold start are not counted: nobody could ask for them in time.
4. A group that is needed for less than a cold start is one of a burst; the others are ramps that last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from policies.model import Role
from simulator.oracle import RoleNeeds, Steps, ahead
from simulator.result import FleetRow


@dataclass(frozen=True, slots=True)
class Start:
    """One group that had to be started: which rise it belongs to, which of the role's groups it is, from when until
    when it is needed, and by how much it was late; seconds.
    """

    rise: int
    group: int
    from_s: float
    until_s: float
    late_s: float

    @property
    def is_ahead(self) -> bool:
        """Whether it served when it was needed."""
        return self.late_s <= 0


@dataclass(frozen=True, slots=True)
class Ramps:
    """A sum of starts: `ramps` (rises) and those that were `whole` started ahead, `groups` and those started `ahead`,
    for how long (s) all groups were needed in sum, and for how long they were late.
    """

    ramps: int = 0
    whole: int = 0
    groups: int = 0
    ahead: int = 0
    needed_s: float = 0.0
    late_s: float = 0.0

    @classmethod
    def of(cls, starts: Sequence[Start]) -> Ramps:
        """Added up. Linear."""
        rises = {one.rise for one in starts}
        behind = {one.rise for one in starts if not one.is_ahead}
        return cls(
            len(rises),
            len(rises) - len(behind),
            len(starts),
            sum(one.is_ahead for one in starts),
            sum(one.until_s - one.from_s for one in starts),
            sum(one.late_s for one in starts),
        )

    def to_json(self) -> dict[str, float]:
        """As plain JSON, seconds to a millisecond."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def starts(needs: RoleNeeds, wanted: Steps, most: int) -> list[Start]:
    """Every group that a role's demand made anybody start, and how late it was under a policy that wanted `wanted`
    groups; at most `most`, which nobody may pass. In order of their ends; linear but for one search each.
    """
    capped = [(at_s, min(groups, most)) for at_s, groups in needs.steps]
    cold_s = needs.cold_start_s
    begin_s = needs.steps[0][0] if needs.steps else 0.0
    serving = _serving(wanted, cold_s)
    found = []
    for rise, group, asked_s, until_s in _layers(ahead(capped, cold_s)):
        from_s = asked_s + cold_s
        if asked_s >= begin_s:
            late_s = _first(serving.get(group, ()), from_s, until_s) - from_s
            found.append(Start(rise, group, from_s, until_s, late_s))
    return found


def split(found: Iterable[Start], cold_start_s: float) -> dict[str, Ramps]:
    """`lasting`: of groups that are needed for at least a cold start; `bursts`: of the others."""
    every = list(found)
    lasting = [one for one in every if one.until_s - one.from_s >= cold_start_s]
    bursts = [one for one in every if one.until_s - one.from_s < cold_start_s]
    return {"lasting": Ramps.of(lasting), "bursts": Ramps.of(bursts)}


def wanted_of(fleet: Iterable[FleetRow], role: Role, end_s: float) -> list[tuple[float, int]]:
    """What a run asked for, as steps that end with 0 at `end_s`."""
    steps: list[tuple[float, int]] = []
    for row in fleet:
        if row.role is not role or row.t_s >= end_s:
            continue
        if steps and steps[-1][0] == row.t_s:
            steps.pop()
        if not steps or steps[-1][1] != row.wanted:
            steps.append((row.t_s, row.wanted))
    return [*steps, (end_s, 0)] if steps else []


def _layers(steps: Steps) -> list[tuple[int, int, float, float]]:
    """(number of the rise, group, since when, until when) of each group of a series, from 1 on, one entry per stretch.
    Rises belong together until something falls.
    """
    found: list[tuple[int, int, float, float]] = []
    open_: list[tuple[int, float]] = []
    rise, is_rising = 0, False
    for at_s, groups in steps:
        if groups > len(open_):
            rise += not is_rising
            is_rising = True
            open_.extend((rise, at_s) for _ in range(groups - len(open_)))
        elif groups < len(open_):
            is_rising = False
        while len(open_) > groups:
            group = len(open_)
            number, since_s = open_.pop()
            found.append((number, group, since_s, at_s))
    return found


def _serving(wanted: Steps, cold_start_s: float) -> dict[int, list[tuple[float, float]]]:
    """When each group serves; those that are there at the begin serve at once."""
    begin_s = wanted[0][0] if wanted else 0.0
    serving: dict[int, list[tuple[float, float]]] = {}
    for _, group, since_s, until_s in _layers(wanted):
        ready_s = since_s if since_s <= begin_s else since_s + cold_start_s
        if ready_s < until_s:
            serving.setdefault(group, []).append((ready_s, until_s))
    return serving


def _first(stretches: Sequence[tuple[float, float]], from_s: float, until_s: float) -> float:
    """The first moment in [from_s, until_s] that one of the stretches covers; `until_s` if none does."""
    at = bisect_right(stretches, from_s, key=lambda stretch: stretch[1])
    return min(max(from_s, stretches[at][0]), until_s) if at < len(stretches) else until_s
