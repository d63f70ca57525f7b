"""Stabilisation windows, as HPA has them: grow to the smallest, shrink to the largest proposal of the window.

Rules:
1. raw <= current implies stabilised <= current, and raw >= current implies stabilised >= current.
2. A window that has not been seen whole cannot justify a shrink: after a restart sizes are held.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.model import ROLES, Code, Pair, Reason, Role, Stage, Verdict

Proposals = Sequence[tuple[float, Pair]]


def stabilise(
    proposal: Pair,
    current: Pair,
    history: Proposals,
    now_s: float,
    *,
    up_s: tuple[float, float],
    down_s: tuple[float, float],
    seen_s: float,
) -> Verdict:
    """Apply both windows to each role. `history` holds earlier proposals as (time, pair), any order;
    `up_s`, `down_s` are windows in seconds as (prefill, decode); `seen_s` is how long proposals have been kept.

    Linear in the length of the history.
    """
    target, why = proposal, []
    for index, role in enumerate(ROLES):
        groups, code = _one_role(
            role, proposal[role], current[role], history, now_s, up_s[index], down_s[index], seen_s
        )
        if groups != proposal[role]:
            window_s = up_s[index] if groups < proposal[role] else down_s[index]
            detail = {"wanted": proposal[role], "kept": groups, "window_s": window_s}
            why.append(Reason(Stage.DECIDE, code, role, detail))
            target = target.with_role(role, groups)
    return target, tuple(why)


def _one_role(
    role: Role,
    wanted: int,
    current: int,
    history: Proposals,
    now_s: float,
    up_s: float,
    down_s: float,
    seen_s: float,
) -> tuple[int, Code]:
    if wanted > current:
        recent = [pair[role] for at_s, pair in history if at_s > now_s - up_s]
        return max(current, min([wanted, *recent])), Code.STABILISED
    if wanted < current:
        if seen_s < down_s:
            return current, Code.WARMING_UP
        recent = [pair[role] for at_s, pair in history if at_s > now_s - down_s]
        return min(current, max([wanted, *recent])), Code.STABILISED
    return wanted, Code.STABILISED
