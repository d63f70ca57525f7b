"""What the controllers and the node agent both know about Kubernetes objects.

Rule: pure; nothing here changes an object that it was given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubeapi.client import Object
from kubeapi.kinds import Kind

ENV_LEADER_ADDRESS = "LWS_LEADER_ADDRESS"


@dataclass(frozen=True, slots=True)
class Condition:
    """One wanted entry of `status.conditions`."""

    type: str
    met: bool
    reason: str = ""
    message: str = ""


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as the API writes times: whole seconds, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(seconds: float) -> str:
    """Seconds since the epoch as a Lease writes times: microseconds, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds(text: str) -> float:
    """The inverse of `timestamp`; fractions are understood."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def labels_of(obj: Object) -> dict[str, str]:
    """Labels, never None."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Object) -> dict[str, str]:
    """Annotations, never None."""
    return obj["metadata"].get("annotations") or {}


def uid(obj: Object) -> str:
    """The identity that a name is not."""
    text: str = obj["metadata"]["uid"]
    return text


def is_terminating(obj: Object) -> bool:
    """Deletion was asked for and has not finished."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_finished(pod: Object) -> bool:
    """The pod will never run again."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: Object) -> bool:
    """Ready and not on its way out."""
    return not is_terminating(pod) and has_condition(pod, "Ready")


def has_condition(obj: Object, kind: str) -> bool:
    """Whether `status.conditions` holds this type with status True."""
    listed = obj.get("status", {}).get("conditions") or []
    return any(entry["type"] == kind and entry["status"] == "True" for entry in listed)


def is_bound(pod: Object) -> bool:
    """Whether a scheduler has given the pod a node."""
    return bool(pod["spec"].get("nodeName"))


def controller_uid(obj: Object) -> str | None:
    """The uid of the owner that manages this object."""
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            owner_uid: str = owner["uid"]
            return owner_uid
    return None


def owner_reference(kind: Kind, owner: Object, *, controls: bool = True) -> Object:
    """An ownerReference, which makes `owner` the controller unless told otherwise."""
    reference = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": owner["metadata"]["name"],
        "uid": uid(owner),
    }
    return reference | ({"controller": True, "blockOwnerDeletion": True} if controls else {})


def content_hash(value: Any, length: int = 10) -> str:
    """A short stable name of a template's content."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:length]


def merge_conditions(old: Object | None, wanted: Iterable[Condition], now: str) -> list[Object]:
    """`wanted` as API conditions; a transition time moves only when the status does."""
    before = {entry["type"]: entry for entry in (old or {}).get("conditions") or []}
    return [_condition(before.get(condition.type), condition, now) for condition in wanted]


def _condition(before: Object | None, wanted: Condition, now: str) -> Object:
    status = "True" if wanted.met else "False"
    kept = before is not None and before["status"] == status
    entry: Object = {
        "type": wanted.type,
        "status": status,
        "lastTransitionTime": (before or {}).get("lastTransitionTime") or now if kept else now,
    }
    texts = {"reason": wanted.reason, "message": wanted.message}
    return entry | {key: text for key, text in texts.items() if text}


def is_within(part: Any, whole: Any) -> bool:
    """Whether a merge patch `part` would leave `whole` as it is."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(is_within(value, whole.get(key)) for key, value in part.items())
    return bool(part == whole)
