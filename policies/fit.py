"""What cannot be placed is not capacity: growth is clamped to what the scheduler says would fit now."""

from __future__ import annotations

from policies.model import Code, Detail, Missing, Reason, Role, Stage


def clamp_to_fit(
    role: Role, current: int, wanted: int, fit: int | Missing, limiting_resource: str
) -> tuple[int, tuple[Reason, ...]]:
    """At most `fit` groups more than `current`. An unknown fit clamps nothing, and says so."""
    if wanted <= current:
        return wanted, ()
    if isinstance(fit, Missing):
        return wanted, (Reason(Stage.PLAN, Code.FIT_UNKNOWN, role, {"why": fit.missing}),)
    if wanted - current <= fit:
        return wanted, ()
    detail: Detail = {"wanted": wanted - current, "fit": fit}
    if limiting_resource:
        detail = {**detail, "limited_by": limiting_resource}
    return current + fit, (Reason(Stage.PLAN, Code.DOES_NOT_FIT, role, detail),)
