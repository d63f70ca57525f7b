"""The ratio band: prefill groups per decode group stay within [low, high].

Rules:
1. A band is kept by raising the role that is short of it, never by cutting the other one: cutting would
   trade a ratio for an SLO.
2. A raise beyond a maximum is not made; the ratio then stays outside and the reason says so.
"""

from __future__ import annotations

import math

from policies.model import Code, Pair, Reason, Role, Stage, Verdict


def keep_ratio(proposal: Pair, low: float, high: float, maximum: Pair) -> Verdict:
    """Raise the short role to the nearest integer pair inside the band."""
    prefill, decode = proposal.prefill, proposal.decode
    if prefill < low * decode:
        return _raise(proposal, Role.PREFILL, math.ceil(low * decode - 1e-9), low, high, maximum)
    if prefill > high * decode:
        return _raise(proposal, Role.DECODE, math.ceil(prefill / high - 1e-9), low, high, maximum)
    return proposal, ()


def _raise(proposal: Pair, role: Role, wanted: int, low: float, high: float, maximum: Pair) -> Verdict:
    groups = max(proposal[role], min(wanted, maximum[role]))
    detail = {"from": proposal[role], "to": groups, "needed": wanted, "low": low, "high": high}
    return proposal.with_role(role, groups), (Reason(Stage.DECIDE, Code.RATIO_REPAIRED, role, detail),)
