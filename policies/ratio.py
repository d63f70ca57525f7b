"""The ratio band: prefill groups per decode group stay within [low, high].

Rules:
1. A band is kept by raising roles, never by cutting one: cutting would trade a ratio for an SLO.
2. The raise is the cheapest pair of whole numbers inside the band, also where both roles must grow to hit a narrow one.
   Cheapest is fewest GPUs (groups, where the costs are not known), then fewest groups, then least prefill: one pair.
3. A band that no pair within the maximums hits is named; then the short role alone goes as near to it as it can.
4. It is a proposal like any other: windows, rates and the budget come after it. Where they leave a pair outside of the
   band, `name_ratio` says so.
5. A band that comes from the work never asks for more of a role than its own work does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from policies.model import Code, Detail, Missing, Pair, Reason, Role, Stage, Verdict

SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Span:
    """What one role needs, in groups: for the low and for the high quantile of its demand."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Band:
    """Allowed prefill groups per decode group. `open`: from nothing to infinity."""

    low: float
    high: float

    def holds(self, pair: Pair) -> bool:
        """Whether a pair is inside; 0 and 0 is."""
        return self.low * pair.decode <= pair.prefill + SLACK and pair.prefill <= self.high * pair.decode + SLACK

    def distance(self, pair: Pair) -> float:
        """How far outside a pair is, as the logarithm of the factor between the ratios; 0 inside."""
        if self.holds(pair):
            return 0.0
        if pair.prefill == 0 or pair.decode == 0:
            return math.inf
        ratio = pair.prefill / pair.decode
        return math.log(self.low / ratio) if ratio < self.low else math.log(ratio / max(self.high, SLACK))


OPEN = Band(0.0, math.inf)
ALIKE = Pair(1, 1)


def band_of_work(prefill: Span | Missing, decode: Span | Missing) -> Band:
    """The ratios that the demand's uncertainty allows: from the least prefill beside the most decode to the opposite.

    Whole groups: a need of 0.3 is one group, and so the band holds every pair that the two roles may come to need. Open
    where a role's need is not known, or where there may be no work.
    """
    if isinstance(prefill, Missing) or isinstance(decode, Missing):
        return OPEN
    (prefill_low, prefill_high), (decode_low, decode_high) = _whole(prefill), _whole(decode)
    if not prefill_low or not decode_low:
        return OPEN
    return Band(prefill_low / decode_high, prefill_high / decode_low)


def narrowed(wanted: Band, work: Band) -> Band:
    """What both allow; where they exclude each other, what a person wants."""
    both = Band(max(wanted.low, work.low), min(wanted.high, work.high))
    return both if both.low <= both.high else wanted


def keep_ratio(proposal: Pair, low: float, high: float, maximum: Pair, gpus_per_group: Pair = ALIKE) -> Verdict:
    """Raise to the cheapest pair inside the band. Linear in the largest maximum."""
    band = Band(low, high)
    if band.holds(proposal):
        return proposal, ()
    room = Pair(max(proposal.prefill, maximum.prefill), max(proposal.decode, maximum.decode))
    found = min(
        _inside(proposal, band, room),
        key=lambda pair: (
            pair.prefill * gpus_per_group.prefill + pair.decode * gpus_per_group.decode,
            pair.prefill + pair.decode,
            pair.prefill,
        ),
        default=None,
    )
    target = found or _nearest(proposal, band, room)
    why = []
    for role in (Role.PREFILL, Role.DECODE):
        if target[role] != proposal[role]:
            detail: Detail = {"from": proposal[role], "to": target[role], "low": low, "high": high}
            why.append(Reason(Stage.DECIDE, Code.RATIO_REPAIRED, role, detail))
    if found is None:
        detail = {"low": low, "high": high, "prefill_max": maximum.prefill, "decode_max": maximum.decode, **_as(target)}
        why.append(Reason(Stage.DECIDE, Code.RATIO_UNREACHABLE, None, detail))
    return target, tuple(why)


def name_ratio(target: Pair, low: float, high: float) -> tuple[Reason, ...]:
    """Say so where a pair that was decided lies outside of the band."""
    if Band(low, high).holds(target):
        return ()
    return (Reason(Stage.DECIDE, Code.RATIO_OUTSIDE, None, {**_as(target), "low": low, "high": high}),)


def _inside(proposal: Pair, band: Band, room: Pair) -> Iterator[Pair]:
    """For each decode count the fewest prefill groups inside the band."""
    for decode in range(proposal.decode, room.decode + 1):
        pair = Pair(max(proposal.prefill, math.ceil(band.low * decode - SLACK)), decode)
        if pair.prefill <= room.prefill and band.holds(pair):
            yield pair


def _nearest(proposal: Pair, band: Band, room: Pair) -> Pair:
    """The short role alone raised to where the ratio is nearest to the band; the fewest groups of equal ones."""
    role = Role.PREFILL if proposal.prefill < band.low * proposal.decode else Role.DECODE
    counts = range(proposal[role], room[role] + 1)
    return min((proposal.with_role(role, count) for count in counts), key=band.distance)


def _whole(span: Span) -> tuple[int, int]:
    return math.ceil(span.low - SLACK), math.ceil(span.high - SLACK)


def _as(pair: Pair) -> dict[str, int]:
    return {"prefill": pair.prefill, "decode": pair.decode}
