"""How many TP groups keep a latency percentile: prefill as a queue of prompts, decode as a pool of slots.

Formulas: Erlang C (Erlang 1917) for the share that waits; Allen-Cunneen's correction of the mean wait by
(1 + cs2) / 2 for Poisson arrivals and service variability cs2, used on an exponential tail; square-root
staffing for the slots (Halfin and Whitt 1981).
"""

from __future__ import annotations

import math
from statistics import NormalDist


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
