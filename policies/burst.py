"""Panic: while demand has outrun a role, the role does not shrink; afterwards it lets go slowly.

Rules:
1. A panic begins at the first look at which a role wants `threshold` times its ready groups, and goes on until
   `calm_s` have passed without another such look.
2. While it lasts, the role keeps the most groups that it has asked for since it began.
3. Afterwards that peak falls in a straight line to nothing over `release_s`; whatever is wanted above it is given.
4. What was forgotten in a restart is not taken for calm: a window that has not been seen whole holds the sizes.

Semantics of 1 and 2: knative/serving pkg/autoscaler/scaling/autoscaler.go (panic threshold 200 %, no decrease in
panic); the slow release is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from policies.model import ROLES, Code, Detail, Pair, Reason, Role, Stage, Verdict


@dataclass(frozen=True, slots=True)
class BurstRules:
    """Of one role. `threshold`: wanted over ready groups; the times in seconds. A `release_s` of 0 lets go at once."""

    calm_s: float
    release_s: float
    threshold: float = 2.0


@dataclass(frozen=True, slots=True)
class Panic:
    """When a role was last seen outrun, and the most groups that it has wanted since its panic began."""

    last_s: float
    peak: int


Panics = Mapping[Role, Panic]
Rules = Mapping[Role, BurstRules]


def watch_burst(panics: Panics, now_s: float, wanted: Pair, ready: Pair, rules: Rules) -> dict[Role, Panic]:
    """The panics after this look. `wanted`: what the newest demand alone needs."""
    found: dict[Role, Panic] = {}
    for role in ROLES:
        before, own = panics.get(role), rules[role]
        if wanted[role] >= own.threshold * max(1, ready[role]):
            found[role] = Panic(now_s, max(wanted[role], _floor(before, now_s, own)))
        elif before and now_s - before.last_s < own.calm_s + own.release_s:
            lasting = _lasts(before, now_s, own)
            found[role] = Panic(before.last_s, max(before.peak, wanted[role])) if lasting else before
    return found


def panicking(panics: Panics, now_s: float, rules: Rules) -> tuple[Role, ...]:
    """The roles whose panic lasts."""
    return tuple(role for role in ROLES if role in panics and _lasts(panics[role], now_s, rules[role]))


def keep_burst(proposal: Pair, current: Pair, panics: Panics, now_s: float, rules: Rules) -> Verdict:
    """Stop each shrink at what is left of the role's peak."""
    target, why = proposal, []
    for role in ROLES:
        floor = min(current[role], _floor(panics.get(role), now_s, rules[role]))
        if proposal[role] >= floor:
            continue
        code = Code.PANIC if _lasts(panics[role], now_s, rules[role]) else Code.PANIC_RELEASING
        detail: Detail = {"wanted": proposal[role], "kept": floor, "since_s": now_s - panics[role].last_s}
        why.append(Reason(Stage.DECIDE, code, role, detail))
        target = target.with_role(role, floor)
    return target, tuple(why)


def _lasts(panic: Panic, now_s: float, rules: BurstRules) -> bool:
    return now_s - panic.last_s < rules.calm_s


def _floor(panic: Panic | None, now_s: float, rules: BurstRules) -> int:
    """What is left of the peak."""
    if panic is None:
        return 0
    over_s = now_s - panic.last_s - rules.calm_s
    if over_s <= 0:
        return panic.peak
    return math.ceil(panic.peak * (1 - over_s / rules.release_s) - 1e-9) if over_s < rules.release_s else 0
