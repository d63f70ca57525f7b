"""What would fit: a question in JSON, answered by the solver that also places.

Rules: pure; what is wrong with a question is one line that names key, value and what is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gangscheduler.model import EXPLAINED, Snapshot, Template
from gangscheduler.place import how_many_fit
from gangscheduler.snapshot import BadQuantity, pod_shape

MOST_PODS, MOST_GROUPS = 1024, 10_000
_KEYS = ("pods", "limit", "podGroup")

Object = dict[str, Any]


class BadQuestion(ValueError):
    """The question cannot be understood; one line for people."""


def fit_answer(snapshot: Snapshot, question: object) -> Object:
    """How many more TP groups fit now. Raises BadQuestion.

    `question`: {"pods": [pod spec, ...] of one TP group, leader first, "limit": most to look for (1),
    "podGroup": "namespace/name" of the PodGroup that would get them (optional)}.
    """
    asked = _object(question)
    template, limit, group = _template(asked.get("pods")), _limit(asked.get("limit", 1)), asked.get("podGroup", "")
    if not isinstance(group, str) or (group and group.count("/") != 1):
        raise BadQuestion(f"podGroup={group!r}: expected namespace/name")
    fit = how_many_fit(snapshot, template, limit, podgroup=group)
    return {
        "groups": fit.groups,
        "limit": limit,
        "reason": str(fit.reason),
        "message": EXPLAINED[fit.reason],
        "limitingResource": fit.limiting_resource,
        "blockedNodes": fit.blocked_nodes,
    }


def _object(question: object) -> Mapping[str, Any]:
    if not isinstance(question, dict):
        raise BadQuestion('expected an object such as {"pods": [{"containers": [...]}], "limit": 8}')
    if unknown := sorted(question.keys() - set(_KEYS)):
        raise BadQuestion(f"{unknown[0]}: unknown; expected {', '.join(_KEYS)}")
    return question


def _template(pods: object) -> Template:
    if not isinstance(pods, list) or not 1 <= len(pods) <= MOST_PODS or not all(isinstance(pod, dict) for pod in pods):
        raise BadQuestion(f"pods: expected a list of 1 to {MOST_PODS} pod specs, the pods of one TP group")
    try:
        return tuple(pod_shape(pod) for pod in pods)
    except (BadQuantity, KeyError, TypeError, AttributeError) as error:
        raise BadQuestion(f"pods: not a list of pod specs: {error}") from error


def _limit(limit: object) -> int:
    if type(limit) is not int or not 1 <= limit <= MOST_GROUPS:
        raise BadQuestion(f"limit={limit!r}: expected a whole number from 1 to {MOST_GROUPS}")
    return limit
