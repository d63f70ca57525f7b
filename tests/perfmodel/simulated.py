"""Small event simulations that the closed forms are held against: a queue of prompts, and decode groups."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field

from perfmodel.lengths import Lengths
from perfmodel.prefill import PrefillWork
from perfmodel.profile import Profile


def prompts_within(work: PrefillWork, requests_per_s: float, groups: int, target_s: float, jobs: int) -> float:
    """The share of prompts within the target: Poisson arrivals, one queue, first come first served."""
    rng = random.Random(7)
    kinds = rng.choices(range(len(work.shares)), work.shares, k=jobs)
    free, now_s, within = [0.0] * groups, 0.0, 0
    for kind in kinds:
        now_s += rng.expovariate(requests_per_s)
        start_s = max(now_s, heapq.heappop(free))
        within += start_s - now_s + work.alone_s[kind] <= target_s
        heapq.heappush(free, start_s + work.service_s[kind])
    return within / jobs


@dataclass
class Group:
    """One decode group: its batch, its cache, and at which of its steps each sequence ends."""

    batch: int = 0
    cache: float = 0.0
    steps: int = 0
    step_ms: float | None = None
    ends: list[tuple[int, float]] = field(default_factory=list)
    joining: list[tuple[float, int]] = field(default_factory=list)

    def join(self, most: int) -> None:
        while self.joining and self.batch < most:
            prompt, answer = self.joining.pop(0)
            self.batch += 1
            self.cache += prompt
            heapq.heappush(self.ends, (self.steps + answer, prompt + answer))

    def end_step(self) -> None:
        self.steps += 1
        self.cache += self.batch
        while self.ends and self.ends[0][0] <= self.steps:
            self.batch -= 1
            self.cache -= heapq.heappop(self.ends)[1]


@dataclass
class Demand:
    """Poisson arrivals with lognormal answers."""

    requests_per_s: float
    prompts: Lengths
    answer_mean: float
    answer_cv2: float

    def answer(self, rng: random.Random) -> int:
        sigma2 = math.log1p(self.answer_cv2)
        return max(1, round(self.answer_mean * rng.lognormvariate(-sigma2 / 2, math.sqrt(sigma2))))


def decode_within(profile: Profile, demand: Demand, groups: int, itl_ms: float, seconds: float) -> tuple[float, float]:
    """The share of tokens within the ITL, and of arrivals that find room in the group with the least batch."""
    rng, fleet = random.Random(5), [Group() for _ in range(groups)]
    tokens = inside = arrivals = roomy = 0
    events = [(rng.expovariate(demand.requests_per_s), -1)]
    while (event := heapq.heappop(events))[0] < seconds:
        now_s, number = event
        if number < 0:
            heapq.heappush(events, (now_s + rng.expovariate(demand.requests_per_s), -1))
            prompt = rng.choices(demand.prompts.tokens, demand.prompts.shares)[0]
            number = min(range(groups), key=lambda i: fleet[i].batch + len(fleet[i].joining))
            group = fleet[number]
            group.joining.append((prompt, demand.answer(rng)))
            arrivals += 1
            roomy += group.cache + sum(one for one, _ in group.joining) <= profile.kv_capacity_tokens
            if group.step_ms is not None:
                continue
        else:
            group = fleet[number]
            tokens += group.batch
            inside += group.batch if group.step_ms is not None and group.step_ms <= itl_ms else 0
            group.end_step()
        group.join(profile.max_num_seqs)
        group.step_ms = profile.decode_ms(group.batch, group.cache / group.batch) if group.batch else None
        if group.step_ms is not None:
            heapq.heappush(events, (now_s + group.step_ms / 1e3, number))
    return inside / tokens, roomy / arrivals
