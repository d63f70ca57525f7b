"""Forecasts told to our tick in the place of its own, to measure what one is worth: made of the arrivals themselves, or
what ours has learned, alone.

Sizing, policies and holds stay as they are; a tick adds to what is told the errors that it has seen, as to any
forecast.

| kind | what is told |
|---|---|
| last | the mean of the last minute: no forecast at all |
| half | half way from there to `horizon` |
| horizon | what will be felt one cold start from now: a perfect forecast |
| path | the most that will be felt from now until then: what an oracle asks for |

Rules:
1. What is felt is a mean over as long as a role takes to feel it, as the tick has it (`core.forecast`). Prompts are
   felt from when they come: means that begin then count as well as those that end then. Answers add up: means that end
   then count.
2. Of all moments until the next tick looks ahead, the highest counts.
3. Beyond the last arrival it goes on as it ended: no policy shrinks because a trace is over.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, get_args

from autoscaler.core.forecast import FELT_MAX_S, MEDIAN
from autoscaler.model import Decision, Outlook
from forecasting.model import Forecast
from forecasting.recent import ERRORS_S
from policies.model import ROLES, Role
from simulator.arrivals import Request
from simulator.ours import Foresight

Kind = Literal["last", "half", "horizon", "path"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LAST_S = 60


class Known:
    """What arrives, per second of the whole load: tokens of a role, and their means as they are felt. Linear in the
    requests and the time; a mean or a maximum costs its length in seconds.
    """

    def __init__(self, requests: Iterable[Request], duration_s: float, itl_ms: float) -> None:
        came: dict[Role, array[float]] = {}
        count = 0
        for at_s, prompt_tokens, output_tokens in requests:
            came = came or {role: array("d", bytes(8 * math.ceil(duration_s))) for role in ROLES}
            if at_s < duration_s:
                came[Role.PREFILL][int(at_s)] += prompt_tokens
                came[Role.DECODE][int(at_s)] += output_tokens
                count += 1
        came = came or {role: array("d") for role in ROLES}
        taken_s = sum(came[Role.DECODE]) / max(1, count) * itl_ms / 1e3
        felt_s = {Role.PREFILL: ERRORS_S, Role.DECODE: min(max(ERRORS_S, taken_s), FELT_MAX_S)}
        self._last = {role: _means(came[role], LAST_S) for role in ROLES}
        self._felt = {role: _means(came[role], round(felt_s[role])) for role in ROLES}
        self._later_s = {Role.PREFILL: ERRORS_S, Role.DECODE: 0.0}

    def last(self, role: Role, now_s: float) -> float:
        """Tokens/s over the last minute before a moment."""
        means = self._last[role]
        return means[min(max(0, int(now_s)), len(means) - 1)]

    def most(self, role: Role, from_s: float, until_s: float) -> float:
        """The most tokens/s that are felt from a moment on until another one."""
        means = self._felt[role]
        ends_s = from_s, until_s + self._later_s[role]
        first, last = (min(max(0, int(at_s)), len(means) - 1) for at_s in ends_s)
        return max(means[first : last + 1])


def _means(came: array[float], window_s: int) -> array[float]:
    """Means over the window that ends with second i before i: of fewer seconds at the begin, 0 before any."""
    sums = array("d", accumulate(came, initial=0.0))
    starts = (max(0, at - window_s) for at in range(len(sums)))
    return array("d", ((sums[at] - sums[start]) / max(1, at - start) for at, start in enumerate(starts)))


@dataclass(frozen=True, slots=True)
class Foreknown:
    """Tells a kind of it, multiplied by `times`, at ticks that come every `period_s`."""

    kind: Kind
    known: Known
    period_s: float
    times: float = 1.0

    def say(self, now_s: float, leads_s: Mapping[Role, float]) -> Outlook:
        """For each role one cold start ahead; nothing else may speak."""
        prompts, outputs = (self._told(role, now_s, leads_s[role]) for role in ROLES)
        return Outlook({"prompt_tokens_per_s": prompts, "output_tokens_per_s": outputs}, only=True)

    def see(self, decision: Decision) -> None:
        """It knows more than that."""

    def _told(self, role: Role, now_s: float, lead_s: float) -> Forecast:
        value = self.times * self._value(role, now_s, now_s + lead_s)
        return Forecast(now_s, lead_s, (MEDIAN,), (value,))

    def _value(self, role: Role, now_s: float, then_s: float) -> float:
        if self.kind == "last":
            return self.known.last(role, now_s)
        truth = self.known.most(role, now_s if self.kind == "path" else then_s, then_s + self.period_s)
        return (truth + self.known.last(role, now_s)) / 2 if self.kind == "half" else truth


@dataclass(frozen=True, slots=True)
class Alone:
    """Somebody's forecasts, beside which nothing else may speak."""

    foresight: Foresight

    def say(self, now_s: float, leads_s: Mapping[Role, float]) -> Outlook:
        """The same, alone."""
        return replace(self.foresight.say(now_s, leads_s), only=True)

    def see(self, decision: Decision) -> None:
        """Told on."""
        self.foresight.see(decision)
