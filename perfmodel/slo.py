"""Whether an SLO can be met at any size, and the closest one that can; pure.

Rule: what is asked is latency without any waiting, and of a sequence that shares its group with nobody. No number of
groups goes below that, so an SLO beyond it is named with both numbers and is never a reason to grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from perfmodel.decode import Contexts, alone_itl_ms
from perfmodel.prefill import PrefillWork
from perfmodel.profile import Profile


@dataclass(frozen=True, slots=True)
class Reach:
    """A target for a share of the requests or tokens, and the least target that some size can keep."""

    target_ms: float
    share: float
    closest_ms: float
    never_share: float | None
    """The share of prompts that misses the target even alone; None where that is not known (ITL)."""

    @property
    def reachable(self) -> bool:
        """Whether some size keeps the target."""
        return self.closest_ms <= self.target_ms


@lru_cache(maxsize=4096)
def ttft_reach(work: PrefillWork, target_ms: float, share: float) -> Reach:
    """Whether `share` of the prompts can have this TTFT. Linear in the classes of prompts."""
    closest_s = next((alone for alone in sorted(work.alone_s) if work.reachable(alone, share)), max(work.alone_s))
    return Reach(target_ms, share, closest_s * 1e3, max(0.0, 1 - work.attainable(target_ms / 1e3)))


@lru_cache(maxsize=4096)
def itl_reach(profile: Profile, held: Contexts, target_ms: float, share: float) -> Reach:
    """Whether `share` of the tokens can have this ITL. Raises ProfileError outside the support."""
    return Reach(target_ms, share, alone_itl_ms(profile, held, share), None)
