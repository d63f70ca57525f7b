"""Another controller that follows the same object: both write in one name, so the name tells nobody.

Rules:
1. A status in our name that is neither what was found at first nor what we wrote is another controller's.
2. While there is one, both say so every SETTLE_S (see adapters/rra.py): so each knows that the other is still there.
"""

from __future__ import annotations

import math

from autoscaler.adapters.fleet import seconds
from autoscaler.adapters.rra import SETTLE_S
from kubeapi import names
from kubeapi.client import Object
from policies.model import Code, Reason, Stage

LASTS_S = 5 * SETTLE_S
"""How long after its last status another controller is taken to be there."""
REMEMBERED = 5
"""Statuses that the watch may yet show, at most."""
_WHY = "another roleratio-controller writes here: run one, or both with --leader-elect and the same Lease"


class Another:
    """What is known about another controller of one object."""

    def __init__(self) -> None:
        self._looked = False
        self._ours: list[Object | None] = []
        self._unsure: list[Object | None] = []
        self._seen_s = -math.inf
        self._sent: Object | None = None
        self._stored: Object | None = None

    def look(self, obj: Object, now_s: float) -> tuple[Reason, ...]:
        """Look at the object as the watch shows it now, which may be older than our last write."""
        status = obj.get("status")
        if status not in self._ours:
            foreign = self._looked and status not in self._unsure and _writer(obj) == names.MANAGER_CONTROLLER
            self._seen_s = now_s if foreign else self._seen_s
            self._ours, self._unsure = [status], []
        self._looked = True
        if now_s - self._seen_s >= LASTS_S:
            return ()
        return (Reason(Stage.OBSERVE, Code.ANOTHER_CONTROLLER, None, {"why": _WHY}),)

    def wrote(self, status: Object, stored: Object) -> None:
        """We have written it, and that is what the server stored of it: an older CRD drops what it does not know."""
        # The watch may still show what was found before.
        self._ours, self._unsure = [*self._ours, stored][-REMEMBERED:], []
        self._sent, self._stored = status, stored

    def lost(self, status: Object) -> None:
        """We have written it, and the answer got lost: it may be seen."""
        self._unsure = [*self._unsure, status][-REMEMBERED:]

    def told(self, obj: Object) -> Object | None:
        """The status as it was written, where the object shows what the server stored of it; else the object's own."""
        status: Object | None = obj.get("status")
        return self._sent if status == self._stored else status


def _writer(obj: Object) -> str:
    """Who wrote the status last."""
    entries = [entry for entry in obj["metadata"].get("managedFields") or () if entry.get("subresource") == "status"]
    last: Object = max(entries, key=lambda entry: seconds(entry.get("time")), default={})
    return str(last.get("manager", ""))
