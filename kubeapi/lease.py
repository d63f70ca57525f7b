"""Leader election: one process at a time holds a coordination.k8s.io/v1 Lease.

Rules:
1. Time is this process' own clock, which also runs while the machine sleeps. Timestamps in the Lease are for
   people: a holder is dead when its entry has not changed here for as long as the entry says it lasts.
2. A leader is one that renewed less than `renew_s` ago, counted from before the request was sent. Others wait
   `duration_s`. The difference is the margin for writes on their way and for clocks that run at different speeds.
3. Every write locks by resourceVersion; who loses the race looks again.
4. Leaving the context gives the Lease back: stop writing before.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from kubeapi.client import KubeClient, Object
from kubeapi.errors import AlreadyExists, ApiError, Conflict, NotFound
from kubeapi.kinds import LEASE
from kubeapi.retry import jittered

log = logging.getLogger("kubeapi.lease")


def own_identity() -> str:
    """A name that no other process has. A restarted container keeps its pod's: what ran there before is dead, so
    it need not wait for its own Lease to run out ($POD_NAME and $POD_UID, from the downward API).
    """
    name, uid = os.environ.get("POD_NAME"), os.environ.get("POD_UID")
    if name and uid:
        return f"{name}_{uid}"
    return f"{socket.gethostname()}_{uuid.uuid4()}"


def clock_s() -> float:
    """Seconds, never set back, counted through suspension where the system can do that."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """A candidacy, as an async context manager: it runs from entry to exit.

    `is_leader` is asked before every write (see `KubeClient.fence`). `lost` is set from the moment at which a term
    ends until the next one begins. `holder` and `transitions` are what the Lease said last; `error` is why it could
    not be read or written at the last attempt, or None. `client` must have no fence of its own.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration_s: float = 15.0,
        renew_s: float = 10.0,
        retry_s: float = 2.0,
        clock: Callable[[], float] = clock_s,
    ) -> None:
        if not duration_s > renew_s > retry_s > 0:
            raise ValueError(f"expected duration_s > renew_s > retry_s > 0, found {duration_s}, {renew_s}, {retry_s}")
        self.identity = identity
        self.holder = ""
        self.transitions = 0
        self.error: ApiError | None = None
        self.lost = asyncio.Event()
        self._client, self._namespace, self._name = client, namespace, name
        self._duration_s, self._renew_s, self._retry_s = duration_s, renew_s, retry_s
        self._clock = clock
        self._known: Object | None = None
        self._foreign: Object = {}
        self._foreign_since_s = 0.0
        self._renewed_s = -math.inf
        self._leads = False
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this process may write now."""
        return self._leads and self._left_s() > 0

    async def wait_leader(self) -> None:
        """Return as soon as this process leads."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_leader)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._campaign())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._leads:
            self._end_term("released", logging.INFO)
            try:
                async with asyncio.timeout(self._retry_s):
                    await self._release()
            except (ApiError, TimeoutError) as failure:
                log.warning("lease %s/%s not released: %s", self._namespace, self._name, failure)

    async def _campaign(self) -> None:
        while True:
            self._expire()
            began_s = self._clock()
            # A leader stops trying when its term is over; nobody is stuck in a request.
            patience_s = self._left_s() if self._leads else self._renew_s
            error: ApiError | None = None
            try:
                async with asyncio.timeout(max(0.0, patience_s)):
                    await self._attempt(began_s)
            except TimeoutError:
                error = ApiError(0, "Timeout", f"no answer within {patience_s:.1f} s")
            except ApiError as failure:
                error = failure
            self._note(error)
            self._expire()
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(min(self._retry_s, self._left_s()) if self._leads else jittered(2 * self._retry_s))

    async def _attempt(self, began_s: float) -> None:
        """Get or keep the Lease if it is ours or free; look again once when someone was faster."""
        for is_last in (False, True):
            if is_last or not self._leads or self._known is None:
                self._known = await self._look()
            if not self._is_free(self._known):
                if self._leads:
                    self._end_term(f"taken by {self.holder}")
                return
            try:
                self._known = await self._write(self._known)
            except (Conflict, AlreadyExists, NotFound):
                if is_last:
                    raise
                continue
            self._renewed_s = began_s
            self._begin_term()
            return

    async def _look(self) -> Object | None:
        try:
            return await self._client.get(LEASE, self._name, self._namespace)
        except NotFound:
            return None

    def _is_free(self, lease: Object | None) -> bool:
        """Whether it is ours to write: nobody's, our own, or of a holder that has been silent for too long."""
        spec: Object = (lease or {}).get("spec") or {}
        self.holder, self.transitions = spec.get("holderIdentity") or "", int(spec.get("leaseTransitions") or 0)
        if self.holder in ("", self.identity):
            return True
        if spec != self._foreign:
            self._foreign, self._foreign_since_s = spec, self._clock()
        lasts_s = spec.get("leaseDurationSeconds") or self._duration_s
        return self._clock() - self._foreign_since_s >= lasts_s

    async def _write(self, lease: Object | None) -> Object:
        now, continues = _now(), self.holder == self.identity
        old: Object = (lease or {}).get("spec") or {}
        transitions = self.transitions + (0 if continues or lease is None else 1)
        spec = old | {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._duration_s),
            "acquireTime": (old.get("acquireTime") if continues else None) or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        if lease is None:
            body: Object = {"metadata": {"name": self._name}, "spec": spec}
            written = await self._client.create(LEASE, body, self._namespace)
        else:
            written = await self._client.update(LEASE, lease | {"spec": spec}, self._namespace)
        self.holder, self.transitions = self.identity, transitions
        return written

    async def _release(self) -> None:
        """Nobody's from now on, if it is still ours: the next one need not wait."""
        lease = await self._look()
        if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self.identity:
            return
        spec = {key: value for key, value in lease["spec"].items() if key != "holderIdentity"}
        await self._client.update(LEASE, lease | {"spec": spec | {"renewTime": _now()}}, self._namespace)
        self.holder = ""

    def _expire(self) -> None:
        if self._leads and self._left_s() <= 0:
            self._end_term(f"not renewed for {self._renew_s:g} s")

    def _begin_term(self) -> None:
        if not self._leads:
            self._leads = True
            self.lost.clear()
            log.info("lease %s/%s: %s leads", self._namespace, self._name, self.identity)

    def _end_term(self, why: str, level: int = logging.WARNING) -> None:
        self._leads = False
        self._known = None
        self.lost.set()
        log.log(level, "lease %s/%s: %s leads no longer: %s", self._namespace, self._name, self.identity, why)

    def _note(self, error: ApiError | None) -> None:
        if error is not None and str(error) != str(self.error):
            log.warning("lease %s/%s: %s", self._namespace, self._name, error)
        self.error = error

    def _left_s(self) -> float:
        return self._renewed_s + self._renew_s - self._clock()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
