"""One pod on this node, from its binding to the deletion of its object.

Rules:
1. The life of a pod: address, image, leader's address, containers. Its end: SIGTERM, grace, SIGKILL, then the
   object is deleted with grace 0.
2. The status is written only when it changed, and only to the pod with this uid.
3. Cancelling `run` kills every process of the pod.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kubeapi import names
from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError, Conflict, NotFound
from kubeapi.events import About, tell
from kubeapi.kinds import POD
from localcluster.agent.addresses import FIRST, LAST, Addresses, declared_ports
from localcluster.agent.container import Container
from localcluster.agent.environment import Surroundings, leader_name
from localcluster.agent.status import REFUSED_REASON, pod_status, refused_status, status_patch
from localcluster.changes import Changes
from localcluster.objects import annotations_of, is_terminating, timestamp, uid

log = logging.getLogger(__name__)

_RETRY_S = 1.0

Refuses = Callable[[Object], str | None]


@dataclass(frozen=True, slots=True)
class Host:
    """What all pods of the agent share. `pods` and `changes` are its view of the API server."""

    client: KubeClient
    addresses: Addresses
    pods: Mapping[tuple[str, str], Object]
    changes: Changes
    kubeconfig: Path
    log_dir: Path
    refuses: Refuses


class Pod:
    """Runs one pod."""

    def __init__(self, pod: Object, host: Host) -> None:
        self.object = pod
        self._host = host
        self._name: str = pod["metadata"]["name"]
        self._namespace: str = pod["metadata"]["namespace"]
        self._ip: str | None = None
        self._gone = False
        self._refused: str | None = None
        self._leave_within_s: float | None = None
        self._start_time = timestamp(time.time())
        self._sent: Object = pod.get("status") or {}
        self._dirty = asyncio.Event()
        self._updated = Changes()
        prefix = f"{self._namespace}_{self._name}_"
        self._containers = [
            Container(pod, spec, host.log_dir / f"{prefix}{spec['name']}.log", self._dirty.set, self._tell)
            for spec in pod["spec"]["containers"]
        ]

    def update(self, pod: Object) -> None:
        """The API server has a newer version."""
        self.object = pod
        self._dirty.set()
        self._updated.notify()

    def vanish(self) -> None:
        """The API server has no such pod any more."""
        self._gone = True
        self._updated.notify()

    def leave(self, within_s: float) -> None:
        """End the processes without deleting anything: the agent itself ends."""
        self._leave_within_s = within_s
        self._updated.notify()

    async def run(self) -> None:
        """Until the pod's object is gone."""
        life = asyncio.create_task(self._live())
        reporter = asyncio.create_task(self._report())
        try:
            await self._until_deleted(life)
            await self._end(life)
        finally:
            await _cancel(reporter, life)
            if self._ip is not None:
                self._host.addresses.release(self._ip)
        if self._leave_within_s is None:
            await self._delete_object()

    async def _live(self) -> None:
        if (why := self._host.refuses(self.object)) is not None:
            self._refused = why
            self._dirty.set()
            await self._tell(REFUSED_REASON, why, warning=True)
            return
        ip = await self._address()
        self._ip = ip
        self._dirty.set()
        await self._pull()
        leader_ip = await self._leader_ip(ip)
        around = Surroundings(ip, str(self._host.kubeconfig), os.environ, leader_ip)
        async with asyncio.TaskGroup() as tasks:
            for container in self._containers:
                tasks.create_task(container.run(around))

    async def _address(self) -> str:
        ports = declared_ports(self.object)
        self._dirty.set()
        while (ip := self._host.addresses.acquire(ports)) is None:
            why = f"no pod address in 127.0.0.{FIRST} to 127.0.0.{LAST} is free with ports {ports}"
            await self._tell("FailedCreatePodSandBox", f"{why}; end some pods or other clusters", warning=True)
            await asyncio.sleep(_RETRY_S)
        return ip

    async def _pull(self) -> None:
        image = self._containers[0].state.image
        text = annotations_of(self.object).get(names.ANNOTATION_IMAGE_PULL_S, "0")
        pull_s = _duration_s(text)
        if pull_s is None:
            wrong = f"annotation {names.ANNOTATION_IMAGE_PULL_S}: {text!r} is no duration; give seconds, like 2.5"
            await self._tell("InvalidAnnotation", f"{wrong}; using 0", warning=True)
        if pull_s:
            await self._tell("Pulling", f'Pulling image "{image}"')
            await asyncio.sleep(pull_s)
        await self._tell("Pulled", f'Successfully pulled image "{image}" in {pull_s or 0:g}s')

    async def _leader_ip(self, own_ip: str) -> str | None:
        leader = leader_name(self.object)
        if leader is None or leader == self._name:
            return own_ip if leader else None
        while True:
            known = self._host.changes.count
            pod = self._host.pods.get((self._namespace, leader))
            if pod and not is_terminating(pod) and (ip := pod.get("status", {}).get("podIP")):
                return str(ip)
            await self._host.changes.since(known)

    async def _until_deleted(self, life: asyncio.Task[None]) -> None:
        while not self._gone and self._leave_within_s is None and not is_terminating(self.object):
            await self._wait(life if not life.done() else None, None)
            if life.done():
                life.result()

    async def _end(self, life: asyncio.Task[None]) -> None:
        running = [c for c in self._containers if "running" in c.state.state]
        began = time.monotonic()
        for container in self._containers:
            container.stop()
        if not running:
            await _cancel(life)
        elif self._leave_within_s is None:
            await self._tell("Killing", f"Stopping {', '.join(c.state.name for c in running)}")
        while not life.done():
            left_s = began + self._grace_s() - time.monotonic()
            if left_s <= 0:
                for container in self._containers:
                    container.kill()
                await life
            else:
                await self._wait(life, left_s)

    def _grace_s(self) -> float:
        """Read again whenever the object changed: a second deletion may shorten it."""
        if self._leave_within_s is not None:
            return self._leave_within_s
        return 0 if self._gone else float(self.object["metadata"].get("deletionGracePeriodSeconds", 30))

    async def _wait(self, life: asyncio.Task[None] | None, timeout_s: float | None) -> None:
        """Until the object changed, the life ended or the time is over."""
        changed = asyncio.create_task(self._updated.since(self._updated.count))
        try:
            waited = {changed} if life is None else {changed, life}
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _report(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not self._gone and not await self._send():
                await asyncio.sleep(_RETRY_S)
                self._dirty.set()

    async def _send(self) -> bool:
        """Write the status if it changed; False when it has to be tried again."""
        status = self._status()
        if status == self._sent:
            return True
        body = {"metadata": {"uid": uid(self.object)}, "status": status_patch(status)}
        try:
            await self._host.client.patch(
                POD, self._name, self._namespace, body, patch_type="strategic", subresource="status"
            )
        except (NotFound, Conflict):
            return True
        except ApiError as error:
            log.warning("status of pod %s/%s not written: %s", self._namespace, self._name, error)
            return False
        self._sent = status
        return True

    def _status(self) -> Object:
        if self._refused is not None:
            return refused_status(self.object, self._refused, self._start_time)
        states = [container.state for container in self._containers]
        now = timestamp(time.time())
        return pod_status(self.object, states, self._ip, self._start_time, self._sent, now)

    async def _delete_object(self) -> None:
        if not self._gone:
            await self._send()
        while not self._gone:
            try:
                await self._host.client.delete(POD, self._name, self._namespace, grace_period_s=0, uid=uid(self.object))
                return
            except (NotFound, Conflict):
                return
            except ApiError as error:
                log.warning("pod %s/%s not deleted: %s", self._namespace, self._name, error)
                await asyncio.sleep(_RETRY_S)

    async def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        about, now_s = About.of(POD, self.object), time.time()
        await tell(self._host.client, about, reason, message, now_s=now_s, warning=warning, code=message)


def _duration_s(text: str) -> float | None:
    try:
        duration_s = float(text)
    except ValueError:
        return None
    return duration_s if math.isfinite(duration_s) and duration_s >= 0 else None


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
