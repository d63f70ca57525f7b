"""What the embedded API server knows of our own kind: defaults, unknown keys, bounds and rules.

Rule: a real server takes them from the CRD, which is made from the models that are asked here.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autoscaler.reported import Report
from autoscaler.settings import Spec
from kubeapi.kinds import RRA
from localcluster.apiserver import invalid

Object = dict[str, Any]
M = TypeVar("M", bound=BaseModel)

_WORDS = {"missing": "Required value", "enum": "Unsupported value", "literal_error": "Unsupported value"}
_OF_TYPE = ("_type", "_from_float")


def fill_in(rra: Object) -> None:
    """Spec and status with their defaults, without keys that are unknown. Raises a Refusal of the first problem."""
    rra["spec"] = _understood(rra, "spec", Spec).model_dump(mode="json", by_alias=True, exclude_none=True)
    if "status" in rra:
        report = _understood(rra, "status", Report)
        rra["status"] = report.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def _understood(rra: Object, part: str, model: type[M]) -> M:
    try:
        return model.model_validate_json(json.dumps(rra[part]), strict=True)
    except ValidationError as error:
        problems = error.errors()
    unknown = [problem["loc"] for problem in problems if problem["type"] == "extra_forbidden"]
    if not unknown:
        raise _refusal(rra, part, problems[0])
    # What nobody knows is dropped, as a server does that is not asked to be strict.
    for *path, key in unknown:
        inner = rra[part]
        for step in path:
            inner = inner[step]
        del inner[key]
    return _understood(rra, part, model)


def _refusal(rra: Object, part: str, problem: Any) -> Exception:
    field = part + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"])
    word = "Wrong type" if problem["type"].endswith(_OF_TYPE) else _WORDS.get(problem["type"], "Invalid value")
    why = f"{'Required value' if problem['input'] is None else word}: {problem['msg'].removeprefix('Value error, ')}"
    return invalid(RRA.kind, rra["metadata"]["name"], field, why)
