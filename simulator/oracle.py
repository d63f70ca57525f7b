"""The oracle: the least GPU time that any policy can spend which always has the groups that the true demand needs.

With N(t) the groups needed and D the cold start, layer k is kept on while N >= k, costs min(gap, D) across an idle gap
(waiting through it, or starting again before it ends), plus D for its first start; the sum over layers and roles is a
true lower bound. All of this is one curve: at t the oracle asks for the most groups needed within [t, t + D]. A layer
is then asked for D before each need, which fills the gaps up to D and costs D at the others: the same sum.

Rules:
1. A series is steps: a number of groups from a time on, until the next entry; the last entry ends it with 0.
2. Everything here is linear in the steps.
3. Groups that are there at the start have cost nothing before it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

from autoscaler.model import Observation
from perfmodel.profile import Profile
from policies.model import ROLES, Pair, Role

Steps = Sequence[tuple[float, int]]
"""(from when in seconds, groups), in order of time; the last entry is the end, with 0 groups."""


@dataclass(frozen=True, slots=True)
class RoleNeeds:
    """What one role needs, and what its groups are like."""

    steps: Steps
    cold_start_s: float
    gpus_per_group: int
    initial: int = 0


def ahead(steps: Steps, cold_start_s: float) -> list[tuple[float, int]]:
    """What the oracle asks for: at every moment the most groups needed within one cold start from then.

    Raises ValueError for steps out of order, groups below 0, or an end that is not 0.
    """
    check(steps)
    asked: list[tuple[float, int]] = []
    window: deque[tuple[float, int]] = deque()
    """Steps within the window that are larger than all that began after them: (when they leave the window, groups)."""
    for (start_s, groups), (end_s, _) in pairwise(steps):
        _leave(asked, window, start_s - cold_start_s)
        while window and window[-1][1] <= groups:
            window.pop()
        window.append((end_s, groups))
        _change(asked, start_s - cold_start_s, window[0][1])
    if steps:
        _leave(asked, window, steps[-1][0])
    return asked


def _leave(asked: list[tuple[float, int]], window: deque[tuple[float, int]], now_s: float) -> None:
    """What has ended up to now leaves; then the next smaller step is the most."""
    while window and window[0][0] <= now_s:
        end_s, _ = window.popleft()
        _change(asked, end_s, window[0][1] if window else 0)


def _change(asked: list[tuple[float, int]], at_s: float, groups: int) -> None:
    if asked and asked[-1][0] >= at_s:
        asked.pop()
    if not asked or asked[-1][1] != groups:
        asked.append((at_s, groups))


def group_seconds(needs: RoleNeeds) -> float:
    """What the oracle spends on one role, from the first request for a group to the end."""
    asked = ahead(needs.steps, needs.cold_start_s)
    if not asked:
        return 0.0
    begin_s = needs.steps[0][0]
    total_s = 0.0
    for (start_s, groups), (end_s, _) in pairwise(asked):
        before_s = max(0.0, min(end_s, begin_s) - start_s)
        total_s += before_s * max(0, groups - needs.initial) + (end_s - start_s - before_s) * groups
    return total_s


def gpu_hours(needs: Mapping[Role, RoleNeeds]) -> float:
    """What the oracle spends on all roles."""
    return sum(group_seconds(role) * role.gpus_per_group for role in needs.values()) / 3600


@dataclass(frozen=True, slots=True)
class Oracle:
    """What the oracle asks for, looked up by time: perfect knowledge for a simulated fleet."""

    asked: Mapping[Role, Steps]

    @classmethod
    def of(cls, needs: Mapping[Role, RoleNeeds], margin_s: float = 0.0) -> Oracle:
        """`margin_s`: how much earlier than the cold start to ask, such as one period between decisions."""
        return cls({role: ahead(need.steps, need.cold_start_s + margin_s) for role, need in needs.items()})

    def groups(self, seen: Observation) -> Pair:
        """The sizes to set; of all that is seen, the time alone is looked at."""
        return Pair(*(self.at(role, seen.now_s) for role in ROLES))

    def at(self, role: Role, now_s: float) -> int:
        """Groups asked for at a time. Logarithmic."""
        steps = self.asked[role]
        at = bisect_right(steps, now_s, key=lambda step: step[0])
        return steps[at - 1][1] if at else 0


Requests = Iterable[tuple[float, int, int]]
"""(arrival in seconds, prompt tokens, output tokens), in any order."""


def fluid_needs(
    requests: Requests, profile: Profile, itl_ms: float, start_s: float, step_s: float, felt_s: float = 0.0
) -> dict[Role, list[tuple[float, int]]]:
    """The groups that the true demand needs, as a fluid: per step the seconds of prefill that arrive in it, and the
    slots that are taken on average, each as a share of the slots that meet the ITL at the request's own context.

    Waiting up to one step is free: `step_s` is what the TTFT target leaves. `felt_s`: a step's load is the mean of so
    long until its end, if that is more than a step. Linear in the requests and the time. A request that no group could
    serve within the ITL takes a group to itself; arrivals before `start_s` do not count.
    """
    work_s: list[float] = []
    taken_s: list[float] = []
    slots_at = cache(lambda context: max(1, profile.max_decode_batch(context, itl_ms)))
    for at_s, prompt_tokens, output_tokens in requests:
        if at_s < start_s:
            continue
        context = _coarse(prompt_tokens + output_tokens / 2, profile.decode.ys[-1])
        prefill_s = profile.prefill_ms(min(prompt_tokens, profile.prefill.xs[-1])) / 1000
        slots = slots_at(context)
        length_s = output_tokens * profile.decode_ms(slots, context) / 1000
        begin_s = at_s - start_s + prefill_s + profile.transfer_ms(prompt_tokens) / 1000
        _spread(work_s, at_s - start_s, 0.0, prefill_s, step_s)
        _spread(taken_s, begin_s, length_s, length_s / slots, step_s)
    series = {Role.PREFILL: work_s, Role.DECODE: taken_s}
    steps = max(1, round(felt_s / step_s))
    return {
        role: steps_of([math.ceil(load / step_s - 1e-9) for load in _means(loads, steps)], start_s, step_s)
        for role, loads in series.items()
    }


def _means(loads: Sequence[float], steps: int) -> list[float]:
    """The mean of each value and those before it, so many together; of fewer at the begin."""
    if steps == 1:
        return list(loads)
    sums = [0.0, *accumulate(loads)]
    return [(sums[end] - sums[max(0, end - steps)]) / min(end, steps) for end in range(1, len(sums))]


def _coarse(context: float, limit: float) -> float:
    """To 1/64 of its power of two, upwards: near enough for a number of slots, and few different ones."""
    grain = 2.0 ** math.floor(math.log2(max(64.0, context))) / 64
    return min(limit, math.ceil(context / grain) * grain)


def _spread(loads: list[float], begin_s: float, length_s: float, amount: float, step_s: float) -> None:
    """Add an amount evenly over an interval; all of it at its begin if that has no length."""
    first, last = int(begin_s // step_s), int((begin_s + length_s) // step_s)
    loads.extend(0.0 for _ in range(len(loads), last + 1))
    if first == last:
        loads[first] += amount
        return
    for index in range(first, last + 1):
        inside_s = min(begin_s + length_s, (index + 1) * step_s) - max(begin_s, index * step_s)
        loads[index] += amount * inside_s / length_s


def steps_of(series: Iterable[int], start_s: float, step_s: float) -> list[tuple[float, int]]:
    """Groups at even times as steps, ended with 0."""
    steps: list[tuple[float, int]] = []
    end_s = start_s
    for index, groups in enumerate(series):
        end_s = start_s + (index + 1) * step_s
        if not steps or steps[-1][1] != groups:
            steps.append((start_s + index * step_s, groups))
    return [*steps, (end_s, 0)] if steps else []


def check(steps: Steps) -> None:
    """Raises ValueError for what is no series of steps."""
    for (before_s, _), (at_s, _) in pairwise(steps):
        if at_s <= before_s:
            raise ValueError(f"at_s = {at_s!r}: expected a time after {before_s!r}; sort the steps by time")
    if any(groups < 0 for _, groups in steps):
        raise ValueError("groups: expected 0 or more in every step")
    if steps and steps[-1][1] != 0:
        raise ValueError(f"groups = {steps[-1][1]!r} in the last step: expected 0, which ends the series")
