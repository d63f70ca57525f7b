"""Small clusters and trees as model values, for tests of the core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gangscheduler.model import Group, Node, Pod, PodShape, Snapshot, Verdict, Verdicts

GPU = "example.com/gpu"
LEVELS = ("block", "rack", "host")


def host(name: str, gpus: int, place: str = "b/r", **extra: Any) -> Node:
    """A node at "block/rack"."""
    return Node(name, ((GPU, gpus),), (*place.split("/"), name), **extra)


def pod(key: str, gpus: int, group: str = "", *, on: str = "", **extra: Any) -> Pod:
    """A pod of ours; a TP group of its own unless `tp_group` says otherwise."""
    return Pod(key, f"uid-{key}", PodShape(((GPU, gpus),)), node=on, group=group, **({"tp_group": key} | extra))


def leaf(key: str, gpus: Iterable[int], minimum: int | None = None, **wishes: Any) -> tuple[Group, list[Pod]]:
    """A PodGroup with pods `key-0`, ...; by default it needs all of them."""
    pods = [pod(f"{key}-{at}", amount, key, order=(at, 0)) for at, amount in enumerate(gpus)]
    return Group(key, key, min_count=len(pods) if minimum is None else minimum, **wishes), pods


def seen(nodes: Iterable[Node], parts: Iterable[tuple[Group, list[Pod]]], **extra: Any) -> Snapshot:
    """The snapshot of nodes and groups with their pods, long after they were made."""
    parts = list(parts)
    return Snapshot(
        now_s=1e6,
        nodes=tuple(nodes),
        pods=tuple(one for _, pods in parts for one in pods),
        groups=tuple(group for group, _ in parts),
        **({"levels": LEVELS} | extra),
    )


def where(verdicts: Verdicts) -> dict[str, str]:
    """Pod -> node of a decision's bindings."""
    return {binding.pod: binding.node for binding in verdicts.bindings}


def said(verdicts: Verdicts, key: str) -> Verdict:
    """The verdict on a group."""
    return next(verdict for verdict in verdicts.groups if verdict.name == key)
