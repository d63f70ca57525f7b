"""Tell the world: conditions of PodGroups and pods, and events.

Rules:
1. Something is written only when it says something new; the same cycle twice writes once.
2. One event object per pod and reason; repeats raise its count.
3. Nobody waits for it: what is to be said is queued, the newest words of a thing replace those that still wait.
4. A condition that could not be written is tried again RETRY_S later; it never stops scheduling.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from gangscheduler.model import Binding, Reason, Verdict, Waiting
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError, Conflict, NotFound, NotLeader
from kubeapi.events import About, tell

log = logging.getLogger("gangscheduler")

INITIALLY_SCHEDULED = "PodGroupInitiallyScheduled"
COMPOSITE_SCHEDULED = "CompositePodGroupInitiallyScheduled"
PLACEABLE = "RoleRatioPlaceable"
WAIT_BEFORE_REPORT_S = 1.0
RETRY_S = 10.0
WRITERS = 4

Key = tuple[str, str]
Job = Callable[[], Awaitable[None]]


class Reporter:
    """Writes conditions and events through one client while `run` runs; remembers what it said, by uid."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        # What is about one thing goes through one queue, so that its newest words are written last.
        self._queues = [_Queue() for _ in range(WRITERS)]
        self._sent: dict[str, dict[str, object]] = {}
        self._failed_s: dict[tuple[str, str], float] = {}
        self._waits_since: dict[str, float] = {}

    async def run(self) -> None:
        """Write what is queued, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for queue in self._queues:
                tasks.create_task(queue.run())

    def forget(self, uid: str) -> None:
        """Drop what was said, or was to be said, about an object that is gone."""
        said = self._sent.pop(uid, {})
        self._waits_since.pop(uid, None)
        for what in said:
            self._failed_s.pop((uid, what), None)

    def forget_all(self) -> None:
        """Another process speaks from now on."""
        for queue in self._queues:
            queue.clear()
        self._sent.clear()
        self._failed_s.clear()
        self._waits_since.clear()

    def podgroup(self, verdict: Verdict, group: Object, now_s: float) -> None:
        """Bring the group's two conditions up to date. A stale view loses to a newer one (Conflict)."""
        meta, old = group["metadata"], _conditions(group)
        new = dict(old)
        initially = COMPOSITE_SCHEDULED if kind_of(group) == kinds.COMPOSITE_PODGROUP else INITIALLY_SCHEDULED
        for condition in _group_conditions(verdict, old, initially, now_s):
            new[condition["type"]] = condition
        version, key = meta["resourceVersion"], (verdict.uid, "status")
        if new == old or self._said(key) == (version, new) or self._rests(key, now_s):
            return
        self._say(key, (version, new), partial(self._write_podgroup, key, group, list(new.values()), now_s))
        about = (verdict.uid, "invalid")
        if verdict.reason == Reason.INVALID_GROUP and self._said(about) != verdict.message:
            told = partial(self._event, group, "Warning", "InvalidGroup", "InvalidGroup", verdict.message, now_s)
            self._say(about, verdict.message, told)

    def waiting(self, waiting: Waiting, pod: Object, now_s: float) -> None:
        """PodScheduled=False and a FailedScheduling event, when the message is new.

        Not before the pod has waited WAIT_BEFORE_REPORT_S: the pods of a TP group appear one after another.
        """
        if now_s - self._waits_since.setdefault(waiting.uid, now_s) < WAIT_BEFORE_REPORT_S:
            return
        key = (waiting.uid, "waiting")
        if self._said(key) != waiting.message and not self._rests(key, now_s):
            self._say(key, waiting.message, partial(self._write_waiting, key, waiting, pod, now_s))

    def nominated(self, pod: Object, node: str) -> None:
        """Bring status.nominatedNodeName up to date; what we did not write is not taken away."""
        meta = pod["metadata"]
        key, now = (meta["uid"], "nominated"), (pod.get("status") or {}).get("nominatedNodeName", "")
        said = self._said(key)
        if said == node or (said is None and node in ("", now)):
            return
        self._say(key, node, partial(self._write_nomination, key, pod, node))

    def scheduled(self, binding: Binding, pod: Object, now_s: float) -> None:
        """The event of a successful binding; that it waited is no longer to be said."""
        self._queue(binding.uid).drop((binding.uid, "waiting"))
        message = f"Successfully assigned {binding.pod} to {binding.node}"
        self._tell(pod, "Normal", "Scheduled", message, now_s)

    def undone(self, pod: Object, message: str, now_s: float) -> None:
        """The event of a pod that is taken off its node, because the rest of its TP group or gang has no place."""
        self._tell(pod, "Warning", "GangUndone", message, now_s)

    def refused(self, pod: Object, message: str, now_s: float) -> None:
        """The event of a pod that a node or the server has refused."""
        self._tell(pod, "Warning", "BindingRefused", message, now_s)

    def _tell(self, pod: Object, kind: str, reason: str, message: str, now_s: float) -> None:
        uid = pod["metadata"]["uid"]
        self._queue(uid).put((uid, reason), partial(self._event, pod, kind, reason, reason, message, now_s))

    def _say(self, key: Key, said: object, job: Job) -> None:
        self._sent.setdefault(key[0], {})[key[1]] = said
        self._queue(key[0]).put(key, job)

    def _said(self, key: Key) -> object:
        return self._sent.get(key[0], {}).get(key[1])

    def _queue(self, uid: str) -> _Queue:
        return self._queues[zlib.crc32(uid.encode()) % WRITERS]

    def _rests(self, key: Key, now_s: float) -> bool:
        return now_s - self._failed_s.get(key, -RETRY_S) < RETRY_S

    def _failed(self, key: Key, now_s: float) -> None:
        """Nothing was said after all."""
        self._sent.get(key[0], {}).pop(key[1], None)
        self._failed_s[key] = now_s

    async def _write_podgroup(self, key: Key, group: Object, conditions: list[Object], now_s: float) -> None:
        meta = group["metadata"]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": {"conditions": conditions}}
        try:
            await self._client.patch(kind_of(group), meta["name"], meta.get("namespace"), body, subresource="status")
        except (Conflict, NotFound, NotLeader):
            return
        except ApiError as error:
            self._failed(key, now_s)
            log.warning("podgroup %s/%s: status not written: %s", meta.get("namespace"), meta["name"], error)

    async def _write_nomination(self, key: Key, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": {"nominatedNodeName": node or None}}
        try:
            await self._client.patch(kinds.POD, meta["name"], meta["namespace"], body, subresource="status")
        except (Conflict, NotFound, NotLeader):
            return
        except ApiError as error:
            self._sent.get(key[0], {}).pop(key[1], None)
            log.warning("pod %s/%s: nomination not written: %s", meta["namespace"], meta["name"], error)

    async def _write_waiting(self, key: Key, waiting: Waiting, pod: Object, now_s: float) -> None:
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
        except (Conflict, NotFound, NotLeader):
            return True
        except ApiError as error:
            log.warning("pod %s/%s: condition not written: %s", meta["namespace"], meta["name"], error)
            return False
        return True

    async def _event(self, obj: Object, kind: str, reason: str, code: str, message: str, now_s: float) -> None:
        about, warning = About.of(kind_of(obj), obj), kind == "Warning"
        await tell(self._client, about, reason, message, now_s=now_s, warning=warning, code=code)


class _Queue:
    """Jobs in the order in which they came; one that comes again takes the place of its older self."""

    def __init__(self) -> None:
        self._jobs: dict[Key, Job] = {}
        self._some = asyncio.Event()

    def put(self, key: Key, job: Job) -> None:
        self._jobs[key] = job
        self._some.set()

    def drop(self, key: Key) -> None:
        self._jobs.pop(key, None)

    def clear(self) -> None:
        self._jobs.clear()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._jobs:
                await self._jobs.pop(next(iter(self._jobs)))()


_KINDS = {kind.kind: kind for kind in (kinds.POD, kinds.PODGROUP, kinds.COMPOSITE_PODGROUP)}


def kind_of(obj: Object) -> kinds.Kind:
    """Of a pod or a group."""
    return _KINDS[obj["kind"]]


def _group_conditions(verdict: Verdict, old: Mapping[str, Object], initially: str, now_s: float) -> list[Object]:
    """Ours, and Kubernetes' own, which never goes back from True."""
    fits = verdict.reason == Reason.FITS
    found = [_condition(old, PLACEABLE, fits, str(verdict.reason), verdict.message, now_s)]
    invalid = verdict.reason == Reason.INVALID_GROUP
    if old.get(initially, {}).get("status") == "True" or not (verdict.desired or invalid):
        return found
    done = not invalid and verdict.admitted >= max(1, verdict.floor)
    reason = "Scheduled" if done else "Invalid" if invalid else "Unschedulable"
    return [*found, _condition(old, initially, done, reason, verdict.message, now_s)]


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
