"""The controllers' one loop: wait for a change, plan from what the caches hold, act, wait until it is seen.

Rules:
1. No memory between rounds. A failed action is logged and planned again from the new state.
2. A round ends when the caches show what it did, so that the next plan never repeats it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kubeapi import names
from kubeapi.cache import Cache, key_of
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config
from kubeapi.errors import ApiError, NotFound
from kubeapi.events import About, tell
from kubeapi.kinds import DEPLOYMENT, LWS, NODE, POD, REPLICASET, Kind
from localcluster.changes import Changes
from localcluster.controllers.actions import Action, Bind, Create, Delete, Note, Patch
from localcluster.controllers.deployment import plan_deployment
from localcluster.controllers.lws import plan_lws
from localcluster.controllers.replicaset import plan_replicaset
from localcluster.controllers.scheduling import DEFAULT_SCHEDULER, plan_bindings
from localcluster.objects import controller_uid, is_terminating, labels_of, owner_reference, timestamp, uid

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_SEEN_WITHIN_S = 5.0
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)


class World:
    """What the controllers know: caches of their kinds and a signal that something changed."""

    def __init__(self, client: KubeClient, kinds: Iterable[Kind], namespace: str | None) -> None:
        self.changes = Changes()
        self.caches = {
            kind: Cache(client, kind, namespace, on_change=lambda _: self.changes.notify()) for kind in kinds
        }

    def all(self, kind: Kind) -> list[Object]:
        """Every object of a kind."""
        return list(self.caches[kind].items.values())

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until the caches show it; a limit keeps a missed change from stopping a controller."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SEEN_WITHIN_S):
                while not seen():
                    await self.changes.since(self.changes.count)


Planner = Callable[[World, str], Iterable[Action]]


def lws_actions(world: World, now: str) -> Iterable[Action]:
    """All LeaderWorkerSets."""
    pods = defaultdict(list)
    for pod in world.all(POD):
        pods[pod["metadata"]["namespace"], labels_of(pod).get(names.LWS_NAME)].append(pod)
    for lws in world.all(LWS):
        meta = lws["metadata"]
        yield from _planned(LWS, lws, plan_lws, pods[meta["namespace"], meta["name"]], now)


def deployment_actions(world: World, now: str) -> Iterable[Action]:
    """All Deployments and ReplicaSets."""
    replicasets, pods = _by_owner(world.all(REPLICASET)), _by_owner(world.all(POD))
    for deployment in world.all(DEPLOYMENT):
        yield from _planned(DEPLOYMENT, deployment, plan_deployment, replicasets[uid(deployment)], now)
    for replicaset in world.all(REPLICASET):
        yield from _planned(REPLICASET, replicaset, plan_replicaset, pods[uid(replicaset)])


def binding_actions(world: World, now: str) -> Iterable[Action]:
    """All pods that wait for the default scheduler."""
    return plan_bindings(world.all(POD), world.all(NODE), now)


def _planned(kind: Kind, obj: Object, plan: Callable[..., list[Action]], *args: Any) -> list[Action]:
    """The plan of one object; one that cannot be read is told so and stops no other."""
    try:
        return plan(obj, *args)
    except _MALFORMED as error:
        return [Note(kind, obj, "InvalidSpec", f"cannot be read: {type(error).__name__}: {error}", warning=True)]


def _by_owner(objects: Iterable[Object]) -> defaultdict[str | None, list[Object]]:
    grouped: defaultdict[str | None, list[Object]] = defaultdict(list)
    for obj in objects:
        grouped[controller_uid(obj)].append(obj)
    return grouped


PLANNERS: dict[str, tuple[Planner, tuple[Kind, ...]]] = {
    names.MANAGER_LWS: (lws_actions, (LWS, POD)),
    names.MANAGER_DEPLOYMENT: (deployment_actions, (DEPLOYMENT, REPLICASET, POD)),
    DEFAULT_SCHEDULER: (binding_actions, (NODE, POD)),
}


@dataclass(frozen=True, slots=True)
class Hand:
    """Carries out actions in the name of one controller."""

    client: KubeClient
    world: World

    async def run(self, planner: Planner) -> None:
        """Plan and act until cancelled."""
        while True:
            known = self.world.changes.count
            actions = list(planner(self.world, timestamp(time.time())))
            done = [await self.perform(action) for action in actions]
            with suppress(TimeoutError):
                await asyncio.wait_for(self.world.changes.since(known), None if all(done) else _RETRY_S)

    async def perform(self, action: Action) -> bool:
        """Do it; False when the API server did not let us."""
        try:
            match action:
                case Create():
                    await self._create(action)
                case Delete():
                    await self._delete(action)
                case Patch(kind, seen, body, subresource):
                    name, namespace = _name(seen)
                    await self.client.patch(kind, name, namespace, body, subresource=subresource)
                case Bind(pod, node):
                    await self._bind(pod, node)
                case Note():
                    await self._note(action)
        except ApiError as error:
            log.warning("%s: %s failed: %s", self.client.field_manager, type(action).__name__, error)
            return False
        return True

    async def _create(self, action: Create) -> None:
        namespace = action.body["metadata"]["namespace"]
        made = [await self.client.create(action.kind, action.body, namespace)]
        for body in action.dependents:
            owner = {"ownerReferences": [owner_reference(action.kind, made[0])]}
            owned = body | {"metadata": body["metadata"] | owner}
            made.append(await self.client.create(action.kind, owned, namespace))
        items = self.world.caches[action.kind].items
        await self.world.until(lambda: all(key_of(obj) in items for obj in made))

    async def _delete(self, action: Delete) -> None:
        name, namespace = _name(action.seen)
        with suppress(NotFound):
            await self.client.delete(action.kind, name, namespace, uid=uid(action.seen))
        items = self.world.caches[action.kind].items

        def gone() -> bool:
            now = items.get(key_of(action.seen))
            return now is None or uid(now) != uid(action.seen) or is_terminating(now)

        await self.world.until(gone)

    async def _note(self, note: Note) -> None:
        about, now_s = About.of(note.kind, note.about), time.time()
        await tell(self.client, about, note.reason, note.message, now_s=now_s, warning=note.warning, code=note.message)

    async def _bind(self, pod: Object, node: str) -> None:
        name, namespace = _name(pod)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        meta = {"name": name, "namespace": namespace, "uid": uid(pod)}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        await self.client.create_sub(POD, name, namespace, "binding", body)
        items = self.world.caches[POD].items

        def bound() -> bool:
            now = items.get(key_of(pod))
            return now is None or bool(now["spec"].get("nodeName"))

        await self.world.until(bound)


def _name(obj: Object) -> tuple[str, str]:
    namespace, name = key_of(obj)
    return name, namespace


@asynccontextmanager
async def controllers(
    config: Config, chosen: Iterable[str] = tuple(PLANNERS), namespace: str | None = None
) -> AsyncIterator[asyncio.TaskGroup]:
    """Run workload controllers while the context is open: all of them, for all namespaces, unless told otherwise."""
    planners = {name: PLANNERS[name] for name in chosen}
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(KubeClient(config, field_manager=name)) for name in planners}
        reader = await stack.enter_async_context(KubeClient(config, field_manager="localcluster"))
        world = World(reader, {kind for _, kinds in planners.values() for kind in kinds}, namespace)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(cache.run()) for cache in world.caches.values()]
            for cache in world.caches.values():
                await cache.synced.wait()
            for name, (planner, _) in planners.items():
                hand = Hand(clients[name], world)
                running.append(tasks.create_task(hand.run(planner)))
            try:
                yield tasks
            finally:
                for task in running:
                    task.cancel()
