"""Queues of jobs in front of servers: how long they wait, and the fewest servers that are enough; pure.

Formulas: the tail of the wait in M/G/n decays at the rate that solves lambda (E[exp(theta S / n)] - 1) = theta, with
the constant and the slope at 0 of M/G/1 for service times S / n (exact in both for M/G/1, everywhere for M/M/n; Tijms
2003, section 9.6). Erlang C (Erlang 1917) for the share that waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

Classes = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Services:
    """The distribution of the service time. `classes`: (share of the jobs, multiples of the mean); `largest`: the one
    that takes longest. Made once for many waits.
    """

    mean_s: float
    cv2: float
    classes: Classes
    largest: tuple[float, float]

    @classmethod
    def of(cls, services: Classes) -> Services:
        """From (share of the jobs, seconds), shares summing to 1."""
        mean_s = sum([share * seconds for share, seconds in services])
        classes = tuple([(share, seconds / mean_s) for share, seconds in services])
        cv2 = sum([share * x * x for share, x in classes]) - 1
        return cls(mean_s, cv2, classes, max(classes, key=itemgetter(1)))


@dataclass(frozen=True, slots=True)
class Wait:
    """The time that a job waits in M/G/n, first come first served: P(wait > t) for t >= 0.

    `slow` x exp(-`slow_rate` t) + (`busy` - `slow`) x exp(-`fast_rate` t), never above `busy`, the share that waits.
    """

    busy: float
    slow: float
    slow_rate: float
    fast_rate: float

    @property
    def mean_s(self) -> float:
        """The mean wait of all jobs, in seconds; infinite from saturation on."""
        if self.busy >= 1:
            return math.inf
        return self.slow / self.slow_rate + (self.busy - self.slow) / self.fast_rate if self.busy else 0.0

    def late(self, seconds: float) -> float:
        """The share of jobs that wait longer; all of them for a time below 0."""
        if seconds < 0 or self.busy >= 1:
            return 1.0
        tail = self.slow * math.exp(-self.slow_rate * seconds)
        tail += (self.busy - self.slow) * math.exp(-self.fast_rate * seconds)
        return 0.0 if tail < 0 else tail if tail < self.busy else self.busy


# Closer to 1 the tail cannot be told from one that never ends.
SATURATED = 1 - 1e-6
# Below it nothing ever waits, and the tail has no rate that a float can hold.
IDLE = 1e-9
ALWAYS = Wait(1.0, 1.0, 0.0, 0.0)
NEVER = Wait(0.0, 0.0, 0.0, 0.0)


def wait(servers: int, jobs_per_s: float, services: Services) -> Wait:
    """How long jobs wait. Linear in servers and service classes."""
    load = jobs_per_s * services.mean_s
    if load >= servers * SATURATED:
        return ALWAYS
    if load <= servers * IDLE:
        return NEVER
    busy, rho = erlang_c(servers, load), load / servers
    # In units of the mean time between two ends of service when all are busy.
    unit = services.mean_s / servers
    theta = _decay(rho, services)
    slope = sum([share * x * math.exp(theta * x) for share, x in services.classes])
    slow = busy / rho * (1 - rho) / (rho * slope - 1)
    apart = busy - slow
    fast = (busy * (1 - rho) - slow * theta) / apart if abs(apart) > 1e-9 * busy else 0.0
    # Where slow and busy are nearly the same, the fast part is next to nothing at any rate.
    return Wait(busy, slow, theta / unit, (fast if fast > theta else 4 * theta) / unit)


def _decay(rho: float, services: Services) -> float:
    """The root above 0 of rho (E[exp(theta X)] - 1) = theta, for a mean of X of 1: Newton's method from above.

    Two bounds to start from: exp(y) >= 1 + y + y^2 / 2, and the largest class alone.
    """
    theta = 2 * (1 - rho) / (rho * (1 + services.cv2))
    share, largest = services.largest
    theta = min(theta, math.log((theta + rho) / (rho * share)) / largest)
    exp, classes = math.exp, services.classes
    for _ in range(50):
        value = slope = 0.0
        for share, x in classes:
            part = share * exp(theta * x)
            value += part
            slope += part * x
        step = (rho * (value - 1) - theta) / (rho * slope - 1)
        theta -= step
        # Each step squares the error: what is left is about as much again, squared.
        if step < 1e-4 * theta:
            break
    return theta


def fewest(enough: Callable[[int], bool], too_few: int, most: int) -> int:
    """The smallest number above `too_few` that is enough, for an `enough` that stays; at most `most`. Logarithmic."""
    low, step = too_few, max(1, math.isqrt(too_few))
    high = low + 1
    while high < most and not enough(high):
        low, high, step = high, high + step, 2 * step
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def largest(enough: Callable[[float], bool], most: float, steps: int = 9) -> float:
    """The largest number up to `most` that is enough, for an `enough` that stays below it; within most / 2^steps."""
    low, high = 0.0, most
    for _ in range(steps):
        middle = (low + high) / 2
        if enough(middle):
            low = middle
        else:
            high = middle
    return low


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that wait when `load` (erlangs) meets `servers`; 1.0 from saturation on."""
    if load >= servers:
        return 1.0
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    rho = load / servers
    return blocked / (1 - rho * (1 - blocked))
