"""Which nodes admit a pod by its selector, affinity and tolerations; room and readiness are others' business.

Rule: pure; an operator or effect that is not known never opens a node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gangscheduler.model import Node, PodShape, Requirement, Taint, Toleration

KEEPING_AWAY = ("NoSchedule", "NoExecute")


class Rule(NamedTuple):
    """What a shape asks of a node besides room."""

    selector: tuple[tuple[str, str], ...]
    affinity: tuple[tuple[Requirement, ...], ...]
    tolerations: tuple[Toleration, ...]


def rule_of(shape: PodShape) -> Rule:
    """The rule of a shape."""
    return Rule(shape.selector, shape.affinity, shape.tolerations)


def admits(node: Node, rule: Rule) -> bool:
    """Whether labels, affinity and taints let such a pod onto the node."""
    if not all(_tolerated(taint, rule.tolerations) for taint in node.taints):
        return False
    if not rule.selector and not rule.affinity:
        return True
    labels = dict(node.labels)
    if any(labels.get(key) != value for key, value in rule.selector):
        return False
    fields = labels | {"metadata.name": node.name}
    return not rule.affinity or any(
        bool(term) and all(_meets(fields, requirement) for requirement in term) for term in rule.affinity
    )


def _tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return taint.effect not in KEEPING_AWAY or any(_tolerates(item, taint) for item in tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    return toleration.operator == "Exists" or (bool(toleration.key) and toleration.value == taint.value)


def _meets(labels: Mapping[str, str], requirement: Requirement) -> bool:
    value, values = labels.get(requirement.key), requirement.values
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _compares(value, values) > 0
        case "Lt":
            return _compares(value, values) < 0
        case _:
            return False


def _compares(value: str | None, values: Sequence[str]) -> int:
    """Sign of value minus the one value compared with; 0 when either is no integer."""
    try:
        difference = int(value or "") - int(values[0] if values else "")
    except ValueError:
        return 0
    return (difference > 0) - (difference < 0)
