"""Decode as a pool of slots: the largest batch within the SLO, what it releases, and the groups for a demand; pure.

Model: sequences are spread evenly over n groups; a step takes as long as its batch makes it. Sequences in flight are
then a processor-sharing queue whose rate depends on its state. With Poisson arrivals its stationary law depends on the
answers' mean length alone (Kelly 1979): p(N) / p(N - 1) = demand / release rate at N. Rules:
1. A batch is limited by ITL, by KV, or by `max_num_seqs`; which of them is said, as they need different help.
2. Contexts are those of sequences in flight, where long answers are met more often: prompt + the mean age.
3. ITL is a percentile over tokens: batches vary by Poisson arrivals, contexts by who is in the batch.
4. Where KV or `max_num_seqs` limits the batch, the share is of sequences that find room at once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

from perfmodel.lengths import Lengths
from perfmodel.profile import Profile, ProfileError
from perfmodel.queueing import fewest, largest

GROUPS_MAX = 4096
# Tokens/s that no batch is seen of.
IDLE = 1e-9
# Variance of a group's batch that spreading leaves: a router balances arrivals, answers end as they end.
IMBALANCE = 1.0
_NORMAL = NormalDist()

Limit = Literal["itl", "kv", "seqs"]


@dataclass(frozen=True, slots=True)
class Contexts:
    """Tokens in the cache per sequence in flight: mean and variance; and the tokens that an answer has on average."""

    mean: float
    variance: float
    answer_tokens: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What limits the batch of one group: `batch` at mean contexts, as a real number.

    Contexts that differ make it vary: their variance in sequences is `fixed` / batch + `per_seq` x batch.
    """

    limit: Limit
    batch: float
    fixed: float = 0.0
    per_seq: float = 0.0

    def full(self, z: float) -> float:
        """The largest batch that stays below with the confidence of `z` standard deviations. Within 0.01."""
        high = max(0.0, self.batch)
        # Below it a smaller batch has more to spare for less: contexts average out in a larger one.
        low = min(high, (max(0.0, z) * math.sqrt(self.fixed) / 2) ** (2 / 3))
        while z > 0 and high < math.inf and high - low > 0.01:
            middle = (low + high) / 2
            if middle + z * math.sqrt(self.fixed / middle + self.per_seq * middle) <= self.batch:
                low = middle
            else:
                high = middle
        return high


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """One group: its largest batch for a share of its tokens, and how it slows down towards it."""

    share: float
    batch: int
    """0: no batch meets the ITL, or one sequence does not fit."""
    limit: Limit
    itl_ms: float
    """Of the largest batch, or of one sequence where there is none."""
    answer_tokens: float
    steps: tuple[tuple[float, float], ...]
    """(batch, ms of a step at mean contexts), up to the most that the engine can run."""
    ceilings: tuple[Ceiling, ...]

    @property
    def tokens_per_s(self) -> float:
        """What a group releases at its largest batch."""
        return self.batch / self.itl_ms * 1e3

    @property
    def requests_per_s(self) -> float:
        """What a group releases at its largest batch."""
        return self.tokens_per_s / self.answer_tokens


def contexts(prompts: Lengths, answer_mean: float, answer_cv2: float) -> Contexts:
    """Contexts in flight. Answers are taken as lognormal: E[X^2] = m^2 (1 + cv2), E[X^3] = m^3 (1 + cv2)^3.

    A sequence in flight has an answer that is chosen by its length, and is anywhere within it: its mean age is
    E[X^2] / 2 E[X], its mean squared age E[X^3] / 3 E[X]. Raises ProfileError for a mean not above 0.
    """
    if not (answer_mean > 0 and answer_cv2 >= 0):
        raise ProfileError(f"answers: mean {answer_mean:g}, cv2 {answer_cv2:g}: expected above 0, cv2 0 or more")
    spread = 1 + answer_cv2
    age = answer_mean * spread / 2
    variance = answer_mean**2 * spread**3 / 3 - age**2 + prompts.mean**2 * prompts.cv2
    return Contexts(prompts.mean + age, max(0.0, variance), answer_mean)


def decode_work(
    profile: Profile, held: Contexts, itl_ms: float, share: float, max_num_seqs: int | None = None
) -> DecodeWork:
    """The largest batch with `share` of its tokens within `itl_ms` and its KV in room. Raises ProfileError."""
    most = min(max_num_seqs or profile.max_num_seqs, profile.max_num_seqs)
    in_cache = profile.kv_capacity_tokens / held.mean
    z, alone_ms = _NORMAL.inv_cdf(share), alone_itl_ms(profile, held, share)
    knots = sorted({1.0, *(batch for batch in profile.decode.xs if 1 < batch < most), float(most)})
    steps = tuple((batch, profile.decode_ms(batch, held.mean)) for batch in knots)
    ceilings = (
        _itl_ceiling(profile, held, steps, itl_ms, z) if alone_ms <= itl_ms else Ceiling("itl", 0.0),
        Ceiling("kv", in_cache, per_seq=held.variance / held.mean**2),
        Ceiling("seqs", most),
    )
    batch, limit = _largest(ceilings, z)
    return DecodeWork(share, batch, limit, _step_ms(steps, max(1, batch)), held.answer_tokens, steps, ceilings)


def alone_itl_ms(profile: Profile, held: Contexts, share: float) -> float:
    """The ITL that `share` of the tokens keep when every sequence has a group to itself. Raises ProfileError.

    Contexts are taken as normal, and cut where the profile ends; a mean beyond that end is an error.
    """
    context = held.mean + max(0.0, _NORMAL.inv_cdf(share)) * math.sqrt(held.variance)
    return profile.decode_ms(1, min(context, max(held.mean, profile.decode.ys[-1])))


def _largest(ceilings: Sequence[Ceiling], z: float) -> tuple[int, Limit]:
    full, limit = min((ceiling.full(z), ceiling.limit) for ceiling in ceilings)
    return math.floor(full + 0.01), limit


Steps = tuple[tuple[float, float], ...]


def _itl_ceiling(profile: Profile, held: Contexts, steps: Steps, itl_ms: float, z: float) -> Ceiling:
    """The batch whose step takes the target, and what contexts that differ are worth in sequences there.

    One sequence alone is known to meet it with the confidence of `z`: more than that they are not worth.
    """
    for (b0, ms0), (b1, ms1) in pairwise(steps):
        if itl_ms < ms1:
            batch = b0 + (itl_ms - ms0) / (ms1 - ms0) * (b1 - b0)
            ms_per_seq = (ms1 - ms0) / (b1 - b0)
            beyond = min(held.mean + math.sqrt(held.variance / batch), profile.decode.ys[-1])
            ms_off = profile.decode_ms(batch, beyond) - itl_ms
            most = ((batch - 1) / max(z, 0.1)) ** 2
            return Ceiling("itl", batch, fixed=min(most, batch * (ms_off / ms_per_seq) ** 2))
    return Ceiling("itl", math.inf)


def _step_ms(steps: Steps, batch: float) -> float:
    i = bisect_left(steps, (batch,))
    if i in (0, len(steps)):
        return steps[max(0, i - 1)][1]
    (b0, ms0), (b1, ms1) = steps[i - 1], steps[i]
    return ms0 + (batch - b0) / (b1 - b0) * (ms1 - ms0)


def mean_batch(work: DecodeWork, tokens_per_s: float) -> float | None:
    """The batch at which one group releases so much; None if it never does."""
    per_ms = tokens_per_s / 1e3
    b0, ms0 = 0.0, work.steps[0][1]
    for b1, ms1 in work.steps:
        if b1 >= per_ms * ms1:
            slope = (ms1 - ms0) / (b1 - b0) if b1 > b0 else 0.0
            return per_ms * (ms0 - slope * b0) / (1 - per_ms * slope)
        b0, ms0 = b1, ms1
    return None


def within_share(work: DecodeWork, requests_per_s: float, groups: int) -> float:
    """The share of tokens within the ITL and of sequences with room at once, the lower one; 0 where demand overruns."""
    if requests_per_s * work.answer_tokens < IDLE:
        return 1.0
    if groups < 1 or work.batch < 1:
        return 0.0
    mean = mean_batch(work, requests_per_s * work.answer_tokens / groups)
    if mean is None:
        return 0.0
    law = _Law.of(work, mean, groups)
    return _NORMAL.cdf(min([_margin(ceiling, law) for ceiling in work.ceilings]))


@dataclass(frozen=True, slots=True)
class _Law:
    """The law of a group's batch about its mean. `steep`: how fast what a group releases outgrows the demand there."""

    steps: Steps
    mean: float
    groups: int
    base: float
    steep: float

    @classmethod
    def of(cls, work: DecodeWork, mean: float, groups: int) -> _Law:
        """About `mean`, the batch at which groups release what arrives."""
        base, near = mean / _step_ms(work.steps, mean), mean * 1.01
        return cls(work.steps, mean, groups, base, math.log(near / _step_ms(work.steps, near) / base) / (near - mean))

    def faster(self, batch: float) -> float:
        """The logarithm of how much more a batch releases than the mean one."""
        return math.log(batch / _step_ms(self.steps, batch) / self.base)


def _margin(ceiling: Ceiling, law: _Law) -> float:
    """Standard deviations between the batch that is seen and the ceiling.

    A token sees its own sequence beside those in flight (the arrival theorem), which are spread over the groups; a
    sequence that asks for room needs it in one group.
    """
    mean, groups = law.mean, law.groups
    apart = ceiling.batch - mean - (1 / groups if ceiling.limit == "itl" else min(1.0, ceiling.batch / 2))
    if math.isinf(apart):
        return math.inf
    # Contexts that differ matter where the batch is next to the ceiling.
    noise = min(IMBALANCE, mean) + ceiling.fixed / max(1.0, ceiling.batch) + ceiling.per_seq * mean
    spread = math.sqrt(mean / groups) if apart <= 0 else apart / _rarity(law, mean + apart)
    return apart / math.sqrt(noise + spread**2)


def _rarity(law: _Law, batch: float) -> float:
    """How rarely the batch exceeds `batch`, in standard deviations of a normal law; above 0.

    The law of the batch falls from its mode by exp(-groups x the integral of log(release rate / demand)), by Simpson's
    rule here. Its tail is Bleistein's (1966) uniform approximation, exact to first order in the skewness.
    """
    mean, groups, top = law.mean, law.groups, min(batch, law.steps[-1][0])
    end = law.faster(top)
    fall = groups * (top - mean) * (4 * law.faster((mean + top) / 2) + end) / 6
    if fall <= 0 or end <= 0:
        return 1e-3
    root = math.sqrt(2 * fall)
    stretch = root * math.sqrt(groups * max(law.steep, 0.0)) / (groups * end)
    tail = _NORMAL.cdf(-root) + _NORMAL.pdf(root) * (stretch - 1) / root
    return max(1e-3, -_NORMAL.inv_cdf(min(0.5, max(tail, 1e-12))))


def fewest_groups(work: DecodeWork, requests_per_s: float, most: int = GROUPS_MAX) -> int:
    """The fewest groups with the work's share of the tokens within the ITL and of the sequences with room at once.

    0 without arrivals. Where no batch meets the SLO, what the throughput needs at the batch that KV and
    `max_num_seqs` allow: an SLO that is out of reach adds no group. Logarithmic in the groups.
    """
    if requests_per_s <= 0:
        return 0
    work = served(work)
    overrun = max(0, math.ceil(requests_per_s / _full_rate(work)) - 1)
    return fewest(lambda groups: within_share(work, requests_per_s, groups) >= work.share, overrun, most)


@lru_cache(maxsize=4096)
def most_requests_per_s(work: DecodeWork, groups: int) -> float:
    """The arrivals that so many groups (1 or more) take by the rule of `fewest_groups`, within 0.2 % of a full load.

    What was computed for the same work is remembered.
    """
    work = served(work)
    return largest(lambda rate: within_share(work, rate, groups) >= work.share, groups * _full_rate(work))


def served(work: DecodeWork) -> DecodeWork:
    """The same work; without the ITL where no batch meets it, and of one sequence at least."""
    if work.batch >= 1:
        return work
    ceilings = tuple(ceiling for ceiling in work.ceilings if ceiling.limit != "itl")
    batch, limit = _largest(ceilings, _NORMAL.inv_cdf(work.share))
    batch = max(1, batch)
    return replace(work, batch=batch, limit=limit, itl_ms=_step_ms(work.steps, batch), ceilings=ceilings)


def _full_rate(work: DecodeWork) -> float:
    """Requests/s that one group releases at the largest batch that its engine runs."""
    top, top_ms = work.steps[-1]
    return top / top_ms * 1e3 / work.answer_tokens
