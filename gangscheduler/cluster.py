"""What is free on every node and in every topology domain: numpy arrays that are updated, not rebuilt.

Rules:
1. A node is a row; rows are sorted by full path, so that a domain of any level is a range of rows.
2. Every pod that sits on a node is charged to it, terminating ones included; `free` may be negative then.
3. Only open nodes (ready, not cordoned) have room. `take` and `give` are undone in reverse order by `rollback`.
4. What a shape finds on each row is kept and mended where rows have changed; it costs a pass over all nodes once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gangscheduler.eligibility import Rule, admits, rule_of
from gangscheduler.model import Amounts, Node, PodShape

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

MOST = 1 << 62
# Sums over all nodes stay exact in 64 bits up to this much a node: 2^48 = 281 TB, or as many devices.
SUMMED = 1 << 48
MENDED_ROWS = 48
KEPT_SHAPES = 2048


class Domain(NamedTuple):
    """A range of rows: the `number`th among the domains of a depth. Depth 0 is the whole cluster."""

    depth: int
    number: int
    start: int
    end: int


class _Kept(NamedTuple):
    room: Ints
    touched: int


class Cluster:
    """Nodes and what they have free. A change of the set of nodes costs O(nodes), every other one O(1)."""

    def __init__(self) -> None:
        self._known: dict[str, Node] = {}
        self._used: dict[str, dict[str, int]] = {}
        self._leaving: dict[str, dict[str, int]] = {}
        self._fresh = False
        self._journal: list[tuple[int, PodShape, int]] = []

    def put(self, node: Node) -> None:
        """A node that is new or has changed."""
        before = self._known.get(node.name)
        self._known[node.name] = node
        same = before is not None and before.path == node.path
        if not self._fresh or not same or not self._column.keys() >= dict(node.allocatable).keys():
            self._fresh = False
            return
        row = self.rows[node.name]
        self.nodes[row] = node
        if before is not None and (before.labels, before.taints) != (node.labels, node.taints):
            for rule, mask in self._masks.items():
                mask[row] = admits(node, rule)
        self._show_row(row)

    def drop(self, name: str) -> None:
        """A node is gone; pods that still name it stay charged to its name."""
        if self._known.pop(name, None) is not None:
            self._fresh = False

    def charge(self, name: str, shape: PodShape, sign: int, *, leaving: bool = False) -> None:
        """A pod has come to (1) or gone from (-1) a node."""
        for book in (self._used, self._leaving) if leaving else (self._used,):
            amounts = book.setdefault(name, {})
            for resource, amount in shape.requests:
                amounts[resource] = amounts.get(resource, 0) + sign * amount
            if not any(amounts.values()):
                del book[name]
        if self._fresh and name in self.rows:
            self._show_row(self.rows[name])

    def settle(self) -> bool:
        """Bring the arrays up to date; whether nodes have other rows than before."""
        if self._fresh:
            return False
        self.nodes = sorted(self._known.values(), key=lambda node: (node.path, node.name))
        self.rows = {node.name: row for row, node in enumerate(self.nodes)}
        resources = sorted({name for node in self.nodes for name, _ in node.allocatable}, key=_devices_first)
        self._column = {name: column for column, name in enumerate(resources)}
        self.resources = resources
        shape = (len(resources), len(self.nodes))
        self.free, self.allocatable = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.open = np.zeros(len(self.nodes), np.bool_)
        self.devices = [column for name, column in self._column.items() if "/" in name]
        self._masks: dict[Rule, Flags] = {}
        self._amounts: dict[PodShape, tuple[Ints, Ints]] = {}
        self._rooms: dict[PodShape, _Kept] = {}
        self._touched: list[int] = []
        for row in range(len(self.nodes)):
            self._show_row(row)
        self._find_domains()
        self._fresh = True
        return True

    def _show_row(self, row: int) -> None:
        node = self.nodes[row]
        used = self._used.get(node.name, {})
        self.open[row] = node.ready and not node.cordoned
        self.allocatable[:, row] = 0
        for resource, amount in node.allocatable:
            column = self._column[resource]
            self.allocatable[column, row] = amount
            self.free[column, row] = max(-MOST, amount - used.get(resource, 0))
        for resource in self._column.keys() - dict(node.allocatable).keys():
            self.free[self._column[resource], row] = max(-MOST, -used.get(resource, 0))
        self._touched.append(row)

    def _find_domains(self) -> None:
        """For every depth: where its domains start and end, which one a row lies in, and whether it has a name."""
        paths = [node.path for node in self.nodes]
        self.depth = max((len(path) for path in paths), default=0)
        self.starts: list[Ints] = []
        self.of: list[Ints] = []
        self.named: list[Flags] = []
        for depth in range(self.depth + 1):
            new = [row == 0 or paths[row][:depth] != paths[row - 1][:depth] for row in range(len(paths))]
            flags = np.array(new, np.bool_)
            starts = np.flatnonzero(flags).astype(np.int64)
            self.starts.append(starts)
            self.of.append(np.cumsum(flags).astype(np.int64) - 1)
            names = [depth == 0 or paths[row][depth - 1 : depth] not in ((), ("",)) for row in starts]
            self.named.append(np.array(names, np.bool_))

    def domain(self, depth: int, number: int) -> Domain:
        """The domain of that number."""
        starts = self.starts[depth]
        end = int(starts[number + 1]) if number + 1 < len(starts) else len(self.nodes)
        return Domain(depth, number, int(starts[number]), end)

    @property
    def whole(self) -> Domain:
        """The whole cluster."""
        return Domain(0, 0, 0, len(self.nodes))

    def around(self, row: int, depth: int) -> Domain:
        """The domain of that depth in which the row lies."""
        return self.domain(depth, int(self.of[depth][row]))

    def inside(self, domain: Domain, depth: int) -> tuple[int, int]:
        """The numbers (from, to) of the domains of that depth within a domain."""
        if domain.start == domain.end:
            return 0, 0
        return int(self.of[depth][domain.start]), int(self.of[depth][domain.end - 1]) + 1

    def sums(self, values: Ints, depth: int, inside: Domain) -> Ints:
        """Values of the rows of a domain, summed over every domain of a depth within it; `values` has its rows only."""
        low, high = self.inside(inside, depth)
        if high - low == len(values):
            return values
        return np.add.reduceat(values, self.starts[depth][low:high] - inside.start)

    def eligible(self, shape: PodShape) -> Flags:
        """Rows whose labels and taints admit the shape, open or not, room or not."""
        rule = rule_of(shape)
        mask = self._masks.get(rule)
        if mask is None:
            if len(self._masks) >= KEPT_SHAPES:
                self._masks.clear()
            mask = np.fromiter((admits(node, rule) for node in self.nodes), np.bool_, len(self.nodes))
            self._masks[rule] = mask
        return mask

    def room(self, shape: PodShape) -> Ints:
        """How many pods of this shape every row can still take. Not to be written to."""
        kept = self._rooms.get(shape)
        rows = self._touched[kept.touched :] if kept is not None else ()
        if kept is None or len(rows) > MENDED_ROWS:
            if len(self._rooms) >= KEPT_SHAPES:
                self._rooms.clear()
            room = self._room(shape, slice(None))
        elif rows:
            room = kept.room
            touched = np.array(rows)
            room[touched] = self._room(shape, touched)
        else:
            return kept.room
        if len(self._touched) > 1_000_000:
            self._rooms.clear()
            self._touched.clear()
        self._rooms[shape] = _Kept(room, len(self._touched))
        return room

    def _room(self, shape: PodShape, rows: slice | Ints) -> Ints:
        columns, amounts = self._charges(shape)
        mask = self.eligible(shape)[rows] & self.open[rows]
        if len(columns) < len(shape.requests):
            return np.zeros(len(mask), np.int64)
        room = np.full(len(mask), SUMMED, np.int64)
        for column, amount in zip(columns.tolist(), amounts.tolist(), strict=True):
            free = self.free[column, rows]
            np.minimum(room, free if amount == 1 else free // amount, out=room)
        room[~mask] = 0
        return np.maximum(room, 0, out=room)

    def _charges(self, shape: PodShape) -> tuple[Ints, Ints]:
        """The columns that the shape takes from, and how much; fewer than it asks for when no node has one."""
        found = self._amounts.get(shape)
        if found is None:
            if len(self._amounts) >= KEPT_SHAPES:
                self._amounts.clear()
            known = [(self._column[name], amount) for name, amount in shape.requests if name in self._column]
            columns = np.array([column for column, _ in known], np.int64)
            found = columns, np.array([amount for _, amount in known], np.int64)
            self._amounts[shape] = found
        return found

    def take(self, row: int, shape: PodShape, count: int = 1) -> None:
        """Charge so many pods of this shape to the row."""
        self._move(row, shape, -count)
        self._journal.append((row, shape, count))

    def give(self, row: int, shape: PodShape, count: int = 1) -> None:
        """Credit pods that were taken before."""
        self._move(row, shape, count)
        self._journal.append((row, shape, -count))

    def mark(self) -> int:
        """A checkpoint for `rollback`."""
        return len(self._journal)

    def rollback(self, mark: int) -> None:
        """Undo every take and give since the checkpoint."""
        while len(self._journal) > mark:
            self._move(*self._journal.pop())

    def forget_journal(self) -> None:
        """End of a decision that has taken everything back: there is no checkpoint any more."""
        self._journal.clear()

    def _move(self, row: int, shape: PodShape, count: int) -> None:
        columns, amounts = self._charges(shape)
        self.free[columns, row] += count * amounts
        self._touched.append(row)

    def leaving(self) -> list[tuple[int, Amounts]]:
        """What terminating pods hold on open rows."""
        found = [
            (self.rows[name], tuple(amounts.items())) for name, amounts in self._leaving.items() if name in self.rows
        ]
        return [(row, amounts) for row, amounts in found if self.open[row]]

    def freed(self, sign: int) -> bool:
        """Count what terminating pods hold as free (1), or no longer (-1); whether there is any such."""
        rows = self.leaving()
        for row, amounts in rows:
            for resource, amount in amounts:
                if resource in self._column:
                    self.free[self._column[resource], row] += sign * amount
            self._touched.append(row)
        return bool(rows)

    def free_devices(self, inside: Domain) -> Ints:
        """Free extended resources of every row of a domain, never below 0."""
        found = np.zeros(inside.end - inside.start, np.int64)
        for column in self.devices:
            found += _positive(self.free[column, inside.start : inside.end])
        return found

    def busy(self, inside: Domain) -> Ints:
        """1 for rows of a domain on which something holds a device; of clusters without devices, anything."""
        columns = self.devices or list(range(len(self.resources)))
        rows = slice(inside.start, inside.end)
        found: Ints = (self.free[columns, rows] != self.allocatable[columns, rows]).any(axis=0).astype(np.int64)
        return found

    def free_of(self, resource: str) -> Ints:
        """What every row has free of a resource, never below 0."""
        column = self._column.get(resource)
        return np.zeros(len(self.nodes), np.int64) if column is None else _positive(self.free[column])

    def whole_of(self, resource: str) -> Ints:
        """What every row has of a resource in all."""
        column = self._column.get(resource)
        return np.zeros(len(self.nodes), np.int64) if column is None else np.minimum(self.allocatable[column], SUMMED)


def total_of(shapes: Mapping[PodShape, int]) -> dict[str, int]:
    """The summed requests of so many pods of each shape."""
    total: dict[str, int] = {}
    for shape, count in shapes.items():
        for resource, amount in shape.requests:
            total[resource] = total.get(resource, 0) + amount * count
    return total


def size_of(shape: PodShape) -> tuple[tuple[int, int, int], Amounts]:
    """A key to sort shapes by: devices, cpu and memory, then whatever else."""
    return tightness(dict(shape.requests)), shape.requests


def _positive(values: Ints) -> Ints:
    return np.minimum(np.maximum(values, 0), SUMMED)


def tightness(free: Mapping[str, int]) -> tuple[int, int, int]:
    """Devices (extended resources), cpu and memory, as a key to sort by: devices count first."""
    devices = sum(amount for resource, amount in free.items() if "/" in resource)
    return devices, free.get("cpu", 0), free.get("memory", 0)


def _devices_first(resource: str) -> tuple[bool, str]:
    return "/" not in resource, resource
