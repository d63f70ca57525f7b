"""What a controller wants done: comparable values, made by the pure planners, carried out by `loop.py`.

Rule: an action names the object that was seen, so that carrying it out on another one is refused by uid.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubeapi.client import Object
from kubeapi.kinds import Kind


@dataclass(frozen=True, slots=True)
class Create:
    """Create `body`, then the dependents, each owned by the object just created."""

    kind: Kind
    body: Object
    dependents: tuple[Object, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly this object, with its own grace period."""

    kind: Kind
    seen: Object


@dataclass(frozen=True, slots=True)
class Patch:
    """Merge `body` into an object or its subresource."""

    kind: Kind
    seen: Object
    body: Object
    subresource: str | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    """Give a pod to a node."""

    pod: Object
    node: str


@dataclass(frozen=True, slots=True)
class Note:
    """Tell users, as an Event."""

    kind: Kind
    about: Object
    reason: str
    message: str
    warning: bool = False


Action = Create | Delete | Patch | Bind | Note
