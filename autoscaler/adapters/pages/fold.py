"""Numbers that may be missing, put together: a result of which a part is missing is missing, with its reason. Pure.

Rule: no result depends on the order of its parts (exact sums, the first reason by name).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from autoscaler.model import Number
from policies.model import Missing


def total(each: Iterable[Number]) -> Number:
    values = list(each)
    return first_missing(values) or math.fsum(value for value in values if isinstance(value, float))


def largest(each: Iterable[Number]) -> Number:
    values = list(each)
    return first_missing(values) or max(value for value in values if isinstance(value, float))


def first_missing(each: Iterable[object]) -> Missing | None:
    """Why one of several is missing; the same reason whatever their order."""
    reasons = [one.missing for one in each if isinstance(one, Missing)]
    return Missing(min(reasons)) if reasons else None


def larger(one: Number, other: Number) -> Number:
    """Of two that say the same: the larger one, and one that says nothing only when neither does."""
    if isinstance(one, Missing):
        return other if not isinstance(other, Missing) or other.missing < one.missing else one
    return one if isinstance(other, Missing) else max(one, other)


def multiplied(left: Number, right: Number) -> Number:
    if isinstance(left, Missing):
        return left
    return right if isinstance(right, Missing) else left * right


def weighted(usages: Iterable[Number], capacities: Iterable[Number]) -> Number:
    """Mean KV use: weighted by capacity where all capacities are known."""
    values = list(usages)
    if missing := first_missing(values):
        return missing
    numbers = [value for value in values if isinstance(value, float)]
    weights = [value for value in capacities if isinstance(value, float)]
    if len(weights) < len(numbers) or sum(weights) <= 0:
        weights = [1.0] * len(numbers)
    return math.fsum(value * weight for value, weight in zip(numbers, weights, strict=True)) / math.fsum(weights)


def split(each: Mapping[str, Number]) -> Mapping[str, float] | Missing:
    """A split of which every part is known, in the order of its keys."""
    known = sorted((said, value) for said, value in each.items() if isinstance(value, float))
    return first_missing(each.values()) or dict(known)
