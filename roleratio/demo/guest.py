"""The demo as a guest in somebody else's cluster: what it needs there, what it makes, and how that goes away.

Rules:
1. What was there before is neither changed nor deleted; a namespace of our name that is in use is refused, not taken.
2. All that is made carries the demo's label or lies in its namespace, so that leaving deletes what it finds, not what
   it remembers; the same removes what a killed demo left.
3. Leaving needs none of the demo's processes: it comes after their end, whatever that was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from autoscaler.errors import UserError
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable
from kubeapi.kinds import Kind
from roleratio.demo import manifests
from roleratio.demo.children import DemoError
from roleratio.demo.manifests import NAMESPACE

Object = dict[str, Any]

SELECTOR = f"{names.DEMO}={NAMESPACE}"
READY_LIMIT_S = 20.0
GONE_LIMIT_S = 90.0
POLL_S = 0.2

# Owners before what they would make again, what is awaited before what waits for it.
_LEAVING: tuple[tuple[Kind, str | None, str], ...] = (
    (kinds.DEPLOYMENT, NAMESPACE, ""),
    (kinds.REPLICASET, NAMESPACE, ""),
    (kinds.LWS, NAMESPACE, ""),
    (kinds.POD, NAMESPACE, ""),
    (kinds.PODGROUP, NAMESPACE, ""),
    (kinds.NAMESPACE, None, SELECTOR),
    (kinds.NODE, None, SELECTOR),
    (kinds.LEASE, names.NODE_LEASES, SELECTOR),
    (kinds.CRD, None, SELECTOR),
)
_BY_HAND = f"kubectl delete namespaces,nodes,customresourcedefinitions --selector {SELECTOR}"


@dataclass(frozen=True, slots=True)
class Guest:
    """A cluster that is prepared. `lws_controller`: it has none, so the demo brings one."""

    client: KubeClient
    lws_controller: bool

    async def nodes_ready(self, count: int) -> None:
        """Wait until our nodes are there and take pods. Raises ApiError."""
        await _within(READY_LIMIT_S, "node of the demo that takes pods", partial(self._has_nodes, count))

    async def _has_nodes(self, count: int) -> bool:
        nodes = (await self.client.list(kinds.NODE, label_selector=SELECTOR)).items
        return sum(map(_takes_pods, nodes)) == count


def check_server(config: Config, yes: bool) -> None:
    """A server that is not on this machine has to be meant. Raises UserError."""
    host = urlsplit(config.server).hostname or ""
    if not yes and not _is_loopback(host):
        raise UserError(
            f"--kubeconfig: {config.server} is not on this machine; the demo would make nodes, a namespace and CRDs "
            "there, and delete them at its end; give --yes if that is meant"
        )


@asynccontextmanager
async def guest(config: Config, say: Callable[[str], None]) -> AsyncIterator[Guest]:
    """The cluster with namespace and CRDs; when this is left, nothing of the demo is in it.

    Raises UserError where the cluster lacks something or is in use, DemoError when not all could be deleted.
    """
    async with KubeClient(config, field_manager="roleratio-demo") as client:
        embedded = (await _version(client)).endswith("-localcluster")
        await _check(client)
        await _clear_leftovers(client, say)
        try:
            await client.create(kinds.NAMESPACE, manifests.guest_namespace())
        except AlreadyExists as error:
            raise _busy(config) from error
        # From here on all that carries the label is ours.
        served = False
        try:
            await _prepare(client, embedded)
            yield Guest(client, not embedded and not await _has_lws_controller(client))
            served = True
        finally:
            complaint = await _leave(client, say)
            if complaint and served:
                raise DemoError(complaint)
            if complaint:
                say(complaint)


async def _version(client: KubeClient) -> str:
    try:
        return await client.version()
    except Unreachable as error:
        raise UserError(f"--kubeconfig: the API server does not answer: {error.message}; is it running?") from error


async def _prepare(client: KubeClient, embedded: bool) -> None:
    if not await _is_served(client, kinds.LWS):
        await client.create(kinds.CRD, manifests.leader_worker_set_crd())
        await _within(READY_LIMIT_S, "LeaderWorkerSet API", partial(_is_served, client, kinds.LWS))
    if not embedded:
        what = f"service account in namespace {NAMESPACE} (does kube-controller-manager run?)"
        await _within(READY_LIMIT_S, what, partial(_has_account, client))


async def _leave(client: KubeClient, say: Callable[[str], None]) -> str | None:
    """Delete, and say so; what went wrong."""
    say(f"deleting what the demo made in {client.config.server}")
    try:
        await remove(client)
    except ApiError as error:
        return f"not all that the demo made was deleted: {error.message}; by hand: {_BY_HAND}"
    say("deleted: the demo's namespace, nodes, leases and CRDs")
    return None


async def remove(client: KubeClient) -> None:
    """Delete all that a demo made. Raises ApiError."""
    for kind, namespace, selector in _LEAVING:
        gone = partial(_all_gone, client, kind, namespace, selector)
        await _within(GONE_LIMIT_S, f"end of the demo's {kind.plural}", gone)


async def _all_gone(client: KubeClient, kind: Kind, namespace: str | None, selector: str) -> bool:
    """Whether none is left; else their deletion was asked for."""
    found = await _listed(client, kind, namespace, selector) or []
    # The processes of the pods have ended with the node agent, and nobody else can say so.
    grace_s = 0 if kind is kinds.POD else None
    for item in found:
        meta = item["metadata"]
        if kind is kinds.POD or "deletionTimestamp" not in meta:
            with suppress(NotFound, Conflict):
                await client.delete(kind, meta["name"], namespace, grace_period_s=grace_s, uid=meta["uid"])
    return not found


async def _check(client: KubeClient) -> None:
    """What the cluster lacks and the demo cannot bring. Raises UserError."""
    if not await _is_served(client, kinds.PODGROUP):
        version, api = await client.version(), kinds.PODGROUP.api_version
        raise UserError(
            f"--kubeconfig: the API server {client.config.server} ({version}) does not serve PodGroup of {api}; "
            f"use Kubernetes 1.37 with the feature gate GenericWorkload and --runtime-config={api}=true"
        )


async def _clear_leftovers(client: KubeClient, say: Callable[[str], None]) -> None:
    """Remove what a killed demo left. Raises UserError when it is not such a leftover."""
    leases = (await client.list(kinds.LEASE, names.NODE_LEASES, label_selector=SELECTOR)).items
    if any(map(_is_alive, leases)):
        raise _busy(client.config)
    with suppress(NotFound):
        there = await client.get(kinds.NAMESPACE, NAMESPACE)
        if (there["metadata"].get("labels") or {}).get(names.DEMO) != NAMESPACE:
            raise UserError(f"--kubeconfig: namespace {NAMESPACE} is there and is not a demo's; delete it first")
        leases.append(there)
    if leases:
        say("deleting what an earlier demo left")
        await remove(client)


def _busy(config: Config) -> UserError:
    return UserError(
        f"--kubeconfig: another demo runs in {config.server}, or ended less than a minute ago without cleaning up; "
        "try again later"
    )


async def _is_served(client: KubeClient, kind: Kind) -> bool:
    return await _listed(client, kind, NAMESPACE) is not None


async def _listed(client: KubeClient, kind: Kind, namespace: str | None, selector: str = "") -> list[Object] | None:
    """The objects; None when the server has no such kind, for which the embedded one says 501."""
    try:
        return (await client.list(kind, namespace, label_selector=selector)).items
    except ApiError as error:
        if error.status in (404, 501):
            return None
        raise


async def _has_account(client: KubeClient) -> bool:
    try:
        await client.get(kinds.SERVICE_ACCOUNT, "default", NAMESPACE)
    except NotFound:
        return False
    return True


async def _has_lws_controller(client: KubeClient) -> bool:
    """Whether LeaderWorkerSet itself is installed: its controller validates what it is given."""
    configurations = (await client.list(kinds.VALIDATING_WEBHOOK)).items
    rules = [rule for item in configurations for hook in item.get("webhooks") or [] for rule in hook.get("rules") or []]
    return any(kinds.LWS.plural in rule.get("resources", []) for rule in rules)


async def _within(limit_s: float, what: str, done: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so. Raises ApiError."""
    deadline_s = time.monotonic() + limit_s
    while not await done():
        if time.monotonic() > deadline_s:
            raise ApiError(0, "Timeout", f"no {what} within {limit_s:g} s")
        await asyncio.sleep(POLL_S)


def _takes_pods(node: Object) -> bool:
    taints = {taint["key"] for taint in node["spec"].get("taints") or []}
    conditions = node.get("status", {}).get("conditions") or []
    return taints == {names.DEMO} and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _is_alive(lease: Object) -> bool:
    spec = lease["spec"]
    renewed_s = datetime.fromisoformat(spec["renewTime"]).timestamp()
    return time.time() - renewed_s < float(spec["leaseDurationSeconds"])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
