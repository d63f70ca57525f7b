"""How many TP groups keep a latency percentile: prefill as a queue of prompts, decode as a pool of slots.

Formulas: the tail of the wait in M/G/n decays at the rate that solves lambda (E[exp(theta S / n)] - 1) = theta, with
the constant and the slope at 0 of M/G/1 for service times S / n (exact in both for M/G/1, everywhere for M/M/n; Tijms
2003, section 9.6). Erlang C (Erlang 1917) for the share that waits; Allen-Cunneen's correction of the mean wait by
(1 + cs2) / 2 for Poisson arrivals and service variability cs2, used on an exponential tail; square-root
staffing for the slots (Halfin and Whitt 1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from statistics import NormalDist

Services = Sequence[tuple[float, float]]
"""The distribution of the service time: (share of the jobs, seconds), shares summing to 1."""


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
        tail = self.slow * math.exp(-min(700.0, self.slow_rate * seconds))
        tail += (self.busy - self.slow) * math.exp(-min(700.0, self.fast_rate * seconds))
        return min(self.busy, max(0.0, tail))


# Closer to 1 the tail cannot be told from one that never ends.
SATURATED = 1 - 1e-6
ALWAYS = Wait(1.0, 1.0, 0.0, 0.0)
NEVER = Wait(0.0, 0.0, 0.0, 0.0)


def wait(servers: int, jobs_per_s: float, services: Services) -> Wait:
    """How long jobs wait. Linear in servers and service classes."""
    mean = sum(share * seconds for share, seconds in services)
    load = jobs_per_s * mean
    if load >= servers * SATURATED:
        return ALWAYS
    if load <= 0:
        return NEVER
    busy, rho = erlang_c(servers, load), load / servers
    # In units of the mean time between two ends of service when all are busy.
    unit = mean / servers
    classes = [(share, seconds / mean) for share, seconds in services]
    cv2 = sum(share * x * x for share, x in classes) - 1
    theta = _decay(rho, cv2, classes)
    slope = sum(share * x * math.exp(theta * x) for share, x in classes)
    slow = busy / rho * (1 - rho) / (rho * slope - 1)
    apart = busy - slow
    fast = (busy * (1 - rho) - slow * theta) / apart if abs(apart) > 1e-9 * busy else 0.0
    # Where slow and busy are nearly the same, the fast part is next to nothing at any rate.
    return Wait(busy, slow, theta / unit, (fast if fast > theta else 4 * theta) / unit)


def _decay(rho: float, cv2: float, classes: Services) -> float:
    """The root above 0 of rho (E[exp(theta X)] - 1) = theta, for a mean of X of 1: Newton's method from above.

    Two bounds to start from: exp(y) >= 1 + y + y^2 / 2, and the largest class alone.
    """
    theta = 2 * (1 - rho) / (rho * (1 + cv2))
    share, largest = max(classes, key=itemgetter(1))
    theta = min(theta, math.log((theta + rho) / (rho * share)) / largest)
    for _ in range(50):
        value, slope = -rho - theta, -1.0
        for share, x in classes:
            part = rho * share * math.exp(theta * x)
            value += part
            slope += part * x
        step = value / slope
        theta -= step
        if step < 1e-6 * theta:
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


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that wait when `load` (erlangs) meets `servers`; 1.0 from saturation on."""
    if load >= servers:
        return 1.0
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    rho = load / servers
    return blocked / (1 - rho * (1 - blocked))


def late_share(servers: int, load: float, service_s: float, service_cv2: float, slack_s: float) -> float:
    """The share of jobs that wait longer than `slack_s`."""
    if load >= servers:
        return 1.0
    if load <= 0:
        return 0.0
    rate = (servers - load) / service_s * 2 / (1 + service_cv2)
    return erlang_c(servers, load) * math.exp(-rate * max(0.0, slack_s))


def queue_servers(load: float, service_s: float, service_cv2: float, slack_s: float, late_max: float, most: int) -> int:
    """The fewest servers with at most `late_max` of the jobs waiting beyond `slack_s`; `most` if none suffices."""
    servers = max(1, math.floor(load) + 1)
    while servers < most and late_share(servers, load, service_s, service_cv2, slack_s) > late_max:
        servers += 1
    return min(servers, most)


def slot_servers(load: float, slots_per_server: int, confidence: float) -> int:
    """The fewest servers whose slots hold `load` (mean jobs in service) with the given confidence."""
    if load <= 0:
        return 0
    needed = load + NormalDist().inv_cdf(confidence) * math.sqrt(load)
    return max(1, math.ceil(needed / slots_per_server - 1e-9))
