"""The static table of kinds: what differs between them is a row here, in schema.py or in table.py."""

from dataclasses import dataclass

from kubeapi import kinds
from kubeapi.kinds import Kind


@dataclass(frozen=True, slots=True)
class Served:
    """How one kind is served.

    `fields`: what a field selector may name beside name and namespace. `scale_selector`: the dotted path of the
    selector that `/scale` publishes (empty: no `/scale`). `custom`: a custom resource in a real cluster, which
    knows no strategic merge patch. `generation`: counts changes of spec. `keeps_status`: also on create.
    """

    kind: Kind
    short_names: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    status: bool = True
    keeps_status: bool = False
    generation: bool = True
    custom: bool = False
    scale_selector: str = ""

    @property
    def resource(self) -> str:
        """`pods`, `deployments.apps`: as messages name the collection."""
        return f"{self.kind.plural}.{self.kind.group}".rstrip(".")

    @property
    def subresources(self) -> tuple[str, ...]:
        """What can follow the name in a path."""
        own = ("binding", "eviction", "log") if self.kind == kinds.POD else ()
        return ("",) + ("status",) * self.status + ("scale",) * bool(self.scale_selector) + own


_POD_FIELDS = ("spec.nodeName", "spec.schedulerName", "spec.restartPolicy", "status.phase", "status.podIP")
_OBJECT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT_FIELDS = ("type", "reason", "reportingComponent", *(f"involvedObject.{name}" for name in _OBJECT_FIELDS))

NAMESPACES = Served(kinds.NAMESPACE, ("ns",), ("status.phase",), keeps_status=True, generation=False)
PODS = Served(kinds.POD, ("po",), _POD_FIELDS)
SERVICES = Served(kinds.SERVICE, ("svc",), ("spec.type",), generation=False)
EVENTS = Served(kinds.EVENT, ("ev",), _EVENT_FIELDS, status=False, generation=False)
SERVED = (
    *(NAMESPACES, PODS, SERVICES, EVENTS),
    Served(kinds.NODE, ("no",), ("spec.unschedulable",), keeps_status=True, generation=False),
    Served(kinds.LEASE, status=False, generation=False),
    Served(kinds.REPLICASET, ("rs",), scale_selector="spec.selector"),
    Served(kinds.DEPLOYMENT, ("deploy",), scale_selector="spec.selector"),
    Served(kinds.LWS, ("lws",), custom=True, scale_selector="status.hpaPodSelector"),
    Served(kinds.PODGROUP),
    Served(kinds.RRA, ("rra",), custom=True),
)
BY_PATH = {(row.kind.group, row.kind.version, row.kind.plural): row for row in SERVED}
BY_OWNER = {(row.kind.api_version, row.kind.kind): row for row in SERVED}
