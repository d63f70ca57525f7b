"""The static table of kinds that the API server serves.

Rule: what differs between kinds is a row here, a rule in schema.py or a column in table.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubeapi import kinds
from kubeapi.kinds import Kind

_NAMES = frozenset({"metadata.name", "metadata.namespace"})


@dataclass(frozen=True, slots=True)
class Served:
    """How one kind is served.

    `scale_selector` is the dotted path of the selector that `/scale` publishes (empty: no `/scale`); `custom`
    marks what is a custom resource in a real cluster and so knows no strategic merge patch; `generation` counts
    changes of spec; `keeps_status`: a status given on create is not dropped.
    """

    kind: Kind
    short_names: tuple[str, ...] = ()
    fields: frozenset[str] = _NAMES
    status: bool = True
    keeps_status: bool = False
    generation: bool = True
    custom: bool = False
    scale_selector: str = ""

    @property
    def resource(self) -> str:
        """`pods`, `deployments.apps`: as messages name the collection."""
        return f"{self.kind.plural}.{self.kind.group}" if self.kind.group else self.kind.plural

    @property
    def qualified(self) -> str:
        """`Pod`, `Deployment.apps`: as messages name the kind."""
        return f"{self.kind.kind}.{self.kind.group}" if self.kind.group else self.kind.kind

    @property
    def subresources(self) -> tuple[str, ...]:
        """What can follow the name in a path."""
        own = ("binding", "eviction", "log") if self.kind == kinds.POD else ()
        return ("",) + ("status",) * self.status + ("scale",) * bool(self.scale_selector) + own


def _fields(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}{name}" for name in names.split())


_POD_FIELDS = _fields("spec.", "nodeName restartPolicy schedulerName serviceAccountName hostNetwork")
_POD_FIELDS |= _fields("status.", "phase podIP nominatedNodeName") | _NAMES
_EVENT_FIELDS = _fields("involvedObject.", "kind namespace name uid apiVersion resourceVersion fieldPath")
_EVENT_FIELDS |= _fields("", "reason reportingComponent source type") | _NAMES

NAMESPACES = Served(kinds.NAMESPACE, ("ns",), _NAMES | {"status.phase"}, keeps_status=True, generation=False)
NODES = Served(kinds.NODE, ("no",), _NAMES | {"spec.unschedulable"}, keeps_status=True, generation=False)
PODS = Served(kinds.POD, ("po",), _POD_FIELDS)
SERVICES = Served(kinds.SERVICE, ("svc",), _NAMES | {"spec.clusterIP", "spec.type"}, generation=False)
EVENTS = Served(kinds.EVENT, ("ev",), _EVENT_FIELDS, status=False, generation=False)
LEASES = Served(kinds.LEASE, status=False, generation=False)
REPLICASETS = Served(kinds.REPLICASET, ("rs",), scale_selector="spec.selector")
DEPLOYMENTS = Served(kinds.DEPLOYMENT, ("deploy",), scale_selector="spec.selector")
LEADERWORKERSETS = Served(kinds.LWS, ("lws",), custom=True, scale_selector="status.hpaPodSelector")
PODGROUPS = Served(kinds.PODGROUP)
AUTOSCALERS = Served(kinds.RRA, ("rra",), custom=True)

_CORE = (NAMESPACES, NODES, PODS, SERVICES, EVENTS)
SERVED = (*_CORE, LEASES, REPLICASETS, DEPLOYMENTS, LEADERWORKERSETS, PODGROUPS, AUTOSCALERS)
BY_PATH = {(row.kind.group, row.kind.version, row.kind.plural): row for row in SERVED}
BY_OWNER = {(row.kind.api_version, row.kind.kind): row for row in SERVED}
