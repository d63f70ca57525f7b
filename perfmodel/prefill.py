"""Prefill as a queue of prompts, waiting included: which share meets a TTFT target, and the groups for a share; pure.

Model: M/G/n, first come first served. Prompts wait where all groups can take them (a router that holds them, or one
that binds them to the group with the least work), and one prompt keeps one group for its steps: chunks of
`prefill_chunk_tokens`, each behind what is in the cache already. TTFT = wait + own steps + KV transfer + decode's first
step. Rules:
1. A prompt that misses the target without waiting is helped by no size: `attainable` says which share is left. Few of
   them, less than HELPED_LEAST, are no reason to grow: sizes are for the throughput then.
2. Engines that pack several waiting prompts into one step are not modelled. All prompts of a step end together: short
   ones gain from it, long ones lose (docs/profiles.md has figures).
3. Against a simulated queue the share within the target is off by at most 0.03 where 0.9 or more meet it; below
   that by 0.03 up to a cv2 of 1 of the prompts, and by 0.08 up to 4, nearly always to the safe side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from perfmodel.lengths import Lengths
from perfmodel.profile import Profile, ProfileError
from perfmodel.queueing import Services, Wait, fewest, largest, wait

# Of the time of groups, where no percentile limits them; above it a queue is unstable for every small surprise.
BUSY_MAX = 0.85
GROUPS_MAX = 4096
# The spread of prompts is an estimate: where the typical one is too long for the target, shorter ones may not exist.
HELPED_LEAST = 0.5


@dataclass(frozen=True)
class PrefillWork:
    """What prompts ask of a group: per class its share, the seconds it keeps a group, its TTFT without waiting."""

    shares: tuple[float, ...]
    service_s: tuple[float, ...]
    alone_s: tuple[float, ...]
    mean_tokens: float

    @cached_property
    def services(self) -> Services:
        """How long prompts keep a group, as the queue takes it."""
        return Services.of(tuple(zip(self.shares, self.service_s, strict=True)))

    @property
    def mean_s(self) -> float:
        """Seconds of one group per prompt."""
        return self.services.mean_s

    def attainable(self, target_s: float) -> float:
        """The share of prompts that meets the target when nothing waits."""
        return sum([share for share, alone in zip(self.shares, self.alone_s, strict=True) if alone <= target_s])

    def helped(self, target_s: float) -> float:
        """The share of prompts that more groups help to meet the target; 0 where it is below HELPED_LEAST."""
        attainable = self.attainable(target_s)
        return attainable if attainable >= HELPED_LEAST else 0.0

    def reachable(self, target_s: float, share: float) -> bool:
        """Whether some size keeps the target for that share: more than that share meets it when nothing waits."""
        return self.attainable(target_s) > share + 1e-9


def prefill_work(
    profile: Profile,
    prompts: Lengths,
    cached_share: float = 0.0,
    first_step_ms: float | None = None,
    transfer_wait_ms: float = 0.0,
) -> PrefillWork:
    """The work of prompts of which `cached_share` is found in the prefix cache.

    `first_step_ms` is decode's at its batch; None: that of a prompt alone. `transfer_wait_ms` is what a transfer waits
    for its link. Raises ProfileError outside the support.
    """
    if not 0 <= cached_share < 1:
        raise ProfileError(f"cached_share = {cached_share:g}: expected 0 or more, and below 1")
    service_s, alone_s = [], []
    for tokens in prompts.tokens:
        own_s = prompt_ms(profile, tokens, cached_share * tokens) / 1e3
        step_ms = profile.decode_ms(1, tokens) if first_step_ms is None else first_step_ms
        service_s.append(own_s)
        alone_s.append(own_s + (transfer_wait_ms + profile.transfer_ms(tokens) + step_ms) / 1e3)
    return PrefillWork(prompts.shares, tuple(service_s), tuple(alone_s), prompts.mean)


def prompt_ms(profile: Profile, tokens: float, cached: float = 0.0) -> float:
    """All steps of one prompt, of whose tokens the first `cached` are in the cache."""
    chunk, total = profile.prefill_chunk_tokens, 0.0
    while cached < tokens:
        new = min(chunk, tokens - cached)
        total += profile.prefill_ms(new, cached)
        cached += new
    return total


def prefill_wait(work: PrefillWork, requests_per_s: float, groups: int) -> Wait:
    """How long prompts wait for a group."""
    return wait(groups, requests_per_s, work.services)


def within_share(work: PrefillWork, requests_per_s: float, groups: int, target_s: float) -> float:
    """The share of prompts whose TTFT meets the target; 0 for an unstable queue."""
    if groups < 1:
        return 0.0
    late_after = prefill_wait(work, requests_per_s, groups).late
    late = sum([share * late_after(target_s - alone) for share, alone in zip(work.shares, work.alone_s, strict=True)])
    return max(0.0, 1 - late)


def fewest_groups(
    work: PrefillWork,
    requests_per_s: float,
    target_s: float,
    share: float,
    most: int = GROUPS_MAX,
) -> int:
    """The fewest groups with `share` of the prompts within the target; 0 without arrivals, at most `most`.

    Where fewer than `share` could ever meet it, `share` of those that could; where few could (`helped`), what the
    throughput needs. So no prompt that cannot be helped adds a group. Logarithmic in the groups.
    """
    if requests_per_s <= 0:
        return 0
    load = requests_per_s * work.mean_s
    if (needed := _needed(work, target_s, share)) == 0:
        return min(most, max(1, math.ceil(load / BUSY_MAX - 1e-9)))
    return fewest(lambda groups: within_share(work, requests_per_s, groups, target_s) >= needed, math.floor(load), most)


@lru_cache(maxsize=4096)
def most_requests_per_s(work: PrefillWork, groups: int, target_s: float, share: float) -> float:
    """The arrivals that so many groups (1 or more) take by the rule of `fewest_groups`, within 0.2 % of a full load.

    What was computed for the same work is remembered.
    """
    full = groups / work.mean_s
    if (needed := _needed(work, target_s, share)) == 0:
        return full * BUSY_MAX
    return largest(lambda rate: within_share(work, rate, groups, target_s) >= needed, full)


@lru_cache(maxsize=4096)
def _needed(work: PrefillWork, target_s: float, share: float) -> float:
    """The share that sizes are made for; 0 where few prompts can meet the target."""
    return share if work.reachable(target_s, share) else share * work.helped(target_s)


def draining_groups(work: PrefillWork, backlog_tokens: float, requests_per_s: float, seconds: float) -> float:
    """Groups that work off a backlog of prompt tokens in so many seconds, beside what arrives; not rounded.

    The backlog is taken to be of the same prompts as the arrivals. Raises ProfileError for seconds not above 0.
    """
    if not seconds > 0:
        raise ProfileError(f"seconds = {seconds:g}: expected a time above 0 in which the backlog is to be gone")
    return work.mean_s * (backlog_tokens / work.mean_tokens / seconds + requests_per_s)
