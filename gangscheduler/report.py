"""Tell the world: conditions of PodGroups and pods, and events.

Rules:
1. Something is written only when it says something new; the same cycle twice writes once.
2. One event object per pod and reason; repeats raise its count.
3. A condition that could not be written is tried again RETRY_S later; it never stops scheduling.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from gangscheduler.model import Binding, Reason, Verdict, Waiting
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError, Conflict, NotFound
from kubeapi.events import About, tell

log = logging.getLogger("gangscheduler")

INITIALLY_SCHEDULED = "PodGroupInitiallyScheduled"
PLACEABLE = "RoleRatioPlaceable"
WAIT_BEFORE_REPORT_S = 1.0
RETRY_S = 10.0


class Reporter:
    """Writes conditions and events through one client; remembers what it said, by uid."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._sent: dict[tuple[str, str], object] = {}
        self._failed_s: dict[tuple[str, str], float] = {}
        self._waits_since: dict[str, float] = {}

    def forget(self, alive: set[str]) -> None:
        """Drop what was said about objects that are gone."""
        self._sent = {key: said for key, said in self._sent.items() if key[0] in alive}
        self._failed_s = {key: since for key, since in self._failed_s.items() if key[0] in alive}
        self._waits_since = {uid: since for uid, since in self._waits_since.items() if uid in alive}

    async def podgroup(self, verdict: Verdict, group: Object, now_s: float) -> None:
        """Bring the PodGroup's two conditions up to date. A stale view loses to a newer one (Conflict)."""
        meta, old = group["metadata"], _conditions(group)
        new = dict(old)
        for condition in _group_conditions(verdict, old, now_s):
            new[condition["type"]] = condition
        version, key = meta["resourceVersion"], (verdict.uid, "status")
        if new == old or self._sent.get(key) == (version, new) or self._rests(key, now_s):
            return
        self._sent[key] = (version, new)
        body = {"metadata": {"resourceVersion": version}, "status": {"conditions": list(new.values())}}
        try:
            await self._client.patch(kinds.PODGROUP, meta["name"], meta.get("namespace"), body, subresource="status")
        except (Conflict, NotFound):
            return
        except ApiError as error:
            self._failed(key, now_s)
            log.warning("podgroup %s: status not written: %s", verdict.name, error)

    async def waiting(self, waiting: Waiting, pod: Object, now_s: float) -> None:
        """PodScheduled=False and a FailedScheduling event, when the message is new.

        Not before the pod has waited WAIT_BEFORE_REPORT_S: the pods of a TP group appear one after another.
        """
        if now_s - self._waits_since.setdefault(waiting.uid, now_s) < WAIT_BEFORE_REPORT_S:
            return
        key = (waiting.uid, "waiting")
        if self._sent.get(key) == waiting.message or self._rests(key, now_s):
            return
        self._sent[key] = waiting.message
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": waiting.message,
            "lastTransitionTime": _stamp(now_s),
        }
        if not _says(_conditions(pod).get("PodScheduled"), condition) and not await self._pod_condition(pod, condition):
            self._failed(key, now_s)
            return
        await self._event(pod, "Warning", "FailedScheduling", str(waiting.reason), waiting.message, now_s)

    async def scheduled(self, binding: Binding, pod: Object, now_s: float) -> None:
        """The event of a successful binding."""
        message = f"Successfully assigned {binding.pod} to {binding.node}"
        await self._event(pod, "Normal", "Scheduled", "Scheduled", message, now_s)

    async def undone(self, pod: Object, message: str, now_s: float) -> None:
        """The event of a pod that is taken off its node, because the rest of its TP group or gang has no place."""
        await self._event(pod, "Warning", "GangUndone", "GangUndone", message, now_s)

    def _rests(self, key: tuple[str, str], now_s: float) -> bool:
        return now_s - self._failed_s.get(key, -RETRY_S) < RETRY_S

    def _failed(self, key: tuple[str, str], now_s: float) -> None:
        """Nothing was said after all."""
        self._sent.pop(key, None)
        self._failed_s[key] = now_s

    async def _pod_condition(self, pod: Object, condition: Object) -> bool:
        """Whether it was written, or the pod has moved on."""
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(
                kinds.POD,
                meta["name"],
                meta["namespace"],
                body,
                patch_type="strategic",
                subresource="status",
            )
        except (Conflict, NotFound):
            return True
        except ApiError as error:
            log.warning("pod %s/%s: condition not written: %s", meta["namespace"], meta["name"], error)
            return False
        return True

    async def _event(self, pod: Object, kind: str, reason: str, code: str, message: str, now_s: float) -> None:
        about, warning = About.of(kinds.POD, pod), kind == "Warning"
        await tell(self._client, about, reason, message, now_s=now_s, warning=warning, code=code)


def _group_conditions(verdict: Verdict, old: Mapping[str, Object], now_s: float) -> list[Object]:
    """Ours, and Kubernetes' own, which never goes back from True."""
    fits = verdict.reason == Reason.FITS
    found = [_condition(old, PLACEABLE, fits, str(verdict.reason), verdict.message, now_s)]
    if old.get(INITIALLY_SCHEDULED, {}).get("status") == "True" or not verdict.desired:
        return found
    done = verdict.admitted >= max(1, verdict.floor)
    reason = "Scheduled" if done else "Unschedulable"
    return [*found, _condition(old, INITIALLY_SCHEDULED, done, reason, verdict.message, now_s)]


def _condition(old: Mapping[str, Object], kind: str, true: bool, reason: str, message: str, now_s: float) -> Object:
    """The condition; the old one unchanged when it says the same."""
    before = old.get(kind, {})
    status = "True" if true else "False"
    new = {"type": kind, "status": status, "reason": reason, "message": message}
    if before and _says(before, new):
        return before
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    return new | {"lastTransitionTime": since or _stamp(now_s)}


def _conditions(obj: Object) -> dict[str, Object]:
    return {item["type"]: item for item in (obj.get("status") or {}).get("conditions") or ()}


def _says(old: Mapping[str, object] | None, new: Mapping[str, object]) -> bool:
    return old is not None and all(old.get(key) == new[key] for key in ("status", "reason", "message"))


def _stamp(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
