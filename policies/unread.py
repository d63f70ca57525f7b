"""Groups that cannot be read: no load on the way up, full on the way down.

Rule: silence is neither room nor work. A role keeps its unread groups beside what the rest needs: where demand is
counted by the workers, what they do is not in it; where a router counts, they may be no supply, and be what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.model import ROLES, Code, Detail, Pair, Reason, Role, Stage, Verdict


def keep_unread(proposal: Pair, current: Pair, unread: Mapping[Role, Sequence[str]]) -> Verdict:
    """On the way down, add the unread groups (named by their leaders) to what is needed, up to the current size."""
    target, why = proposal, []
    for role in ROLES:
        names = unread.get(role, ())
        groups = min(current[role], proposal[role] + len(names))
        if proposal[role] < groups:
            target = target.with_role(role, groups)
            detail: Detail = {
                "wanted": proposal[role],
                "kept": groups,
                "unread": len(names),
                "named": ", ".join(names[:5]),
            }
            why.append(Reason(Stage.DECIDE, Code.UNREAD_IS_FULL, role, detail))
    return target, tuple(why)
