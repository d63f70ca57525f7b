"""What our two service accounts need, what they must not have, and what rendered manifests grant them.

Rules:
1. One line per need, with its reason: docs/install.md says the same to people, a test keeps both equal.
2. A grant is one verb on one resource in one place; rules, roles and bindings are only how it is written.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFESTS = ROOT / "manifests"
BASE, DRY_RUN, ACTIVE = "base", "overlays/dry-run", "overlays/active"
INSTALLS = (BASE, DRY_RUN, ACTIVE)
SYSTEM = "roleratio-system"
CONTROLLER, SCHEDULER = "roleratio-controller", "roleratio-scheduler"
ACCOUNTS = (CONTROLLER, SCHEDULER)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """A verb on `group/plural[/subresource]`; an empty namespace means everywhere, an empty name means any."""

    account: str
    verb: str
    resource: str
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """A line of the table: why an account must be able to do something. `only`: the one install that allows it."""

    account: str
    verbs: str
    resource: str
    why: str
    namespace: str = ""
    name: str = ""
    only: str = ""

    def accesses(self) -> Iterator[Access]:
        """One per verb."""
        for verb in self.verbs.split():
            yield Access(self.account, verb, self.resource, self.namespace, self.name)


READ = "get list watch"
LWS, LEASES = "leaderworkerset.x-k8s.io/leaderworkersets", "coordination.k8s.io/leases"
CRDS = "apiextensions.k8s.io/customresourcedefinitions"
COMPOSITES = "scheduling.k8s.io/compositepodgroups"
PODGROUPS, RRA = "scheduling.k8s.io/podgroups", "roleratio.dev/roleratioautoscalers"

NEEDS = (
    Need(CONTROLLER, READ, "/nodes", "how many more TP groups fit"),
    Need(CONTROLLER, READ, "/pods", "which TP groups are ready, starting or draining; where metrics are"),
    Need(CONTROLLER, READ, "apps/deployments", "roles of one pod per group, and routers"),
    Need(CONTROLLER, READ, LWS, "roles of several pods per group"),
    Need(CONTROLLER, READ, PODGROUPS, "the roles' minimums"),
    Need(CONTROLLER, READ, CRDS, "whether our own CRD is of this version", name="roleratioautoscalers.roleratio.dev"),
    Need(CONTROLLER, READ, RRA, "what people want"),
    Need(CONTROLLER, "patch", f"{RRA}/status", "what was seen and decided, and why"),
    Need(CONTROLLER, "get create patch", "/events", "what was done, beside the workload"),
    Need(CONTROLLER, "create", LEASES, "leader election", SYSTEM),
    Need(CONTROLLER, "get update", LEASES, "leader election", SYSTEM, CONTROLLER),
    Need(CONTROLLER, "get patch", f"{LWS}/scale", "replicas", only=ACTIVE),
    Need(CONTROLLER, "get patch", "apps/deployments/scale", "replicas", only=ACTIVE),
    Need(CONTROLLER, "patch", PODGROUPS, "minimums", only=ACTIVE),
    Need(SCHEDULER, READ, "/nodes", "room and place"),
    Need(SCHEDULER, READ, "/pods", "what waits, and what takes room"),
    Need(SCHEDULER, READ, PODGROUPS, "gangs and their minimums"),
    Need(SCHEDULER, READ, COMPOSITES, "trees of gangs and their minimums"),
    Need(SCHEDULER, "create", "/pods/binding", "placing a pod"),
    Need(SCHEDULER, "create", "/pods/eviction", "undoing a TP group that could be bound only in part"),
    Need(SCHEDULER, "patch", "/pods/status", "why a pod waits, and which place is being freed for it"),
    Need(SCHEDULER, "patch", f"{PODGROUPS}/status", "whether more groups could be placed"),
    Need(SCHEDULER, "patch", f"{COMPOSITES}/status", "the same of a tree"),
    Need(SCHEDULER, "create", "authentication.k8s.io/tokenreviews", "who asks what would fit"),
    Need(SCHEDULER, "create", "authorization.k8s.io/subjectaccessreviews", "whether they may ask"),
    Need(SCHEDULER, "get create patch", "/events", "what was bound and what was not, beside the pod"),
    Need(SCHEDULER, "create", LEASES, "leader election", SYSTEM),
    Need(SCHEDULER, "get update", LEASES, "leader election", SYSTEM, SCHEDULER),
)

WRITE = "create update patch delete deletecollection"
REFUSED_TO_BOTH = (
    (f"{READ} {WRITE}", "/secrets", "team-a"),
    (f"{READ} {WRITE}", "/configmaps", "team-a"),
    (f"{READ} {WRITE}", "/secrets", SYSTEM),
    ("create get", "/pods/exec", "team-a"),
    ("create get", "/pods/portforward", "team-a"),
    ("get", "/pods/log", "team-a"),
    (WRITE, "/pods", "team-a"),
    (WRITE, "/nodes", ""),
    ("patch update", "/nodes/status", ""),
    (WRITE, "apps/deployments", "team-a"),
    ("update", "apps/deployments/scale", "team-a"),
    (WRITE, "apps/statefulsets", "team-a"),
    (f"{READ} update patch", "apps/statefulsets/scale", "team-a"),
    (WRITE, LWS, "team-a"),
    ("update", f"{LWS}/scale", "team-a"),
    ("create update delete deletecollection", PODGROUPS, "team-a"),
    (WRITE, RRA, "team-a"),
    ("update", f"{RRA}/status", "team-a"),
    (f"{READ} {WRITE}", CRDS, ""),
    (f"{READ} {WRITE} bind escalate", "rbac.authorization.k8s.io/clusterroles", ""),
    (f"{READ} {WRITE}", "rbac.authorization.k8s.io/clusterrolebindings", ""),
    ("create", "/serviceaccounts/token", SYSTEM),
    ("impersonate", "/users", ""),
    ("create get update patch delete", LEASES, "kube-system"),
    (f"delete list watch {READ}", LEASES, SYSTEM),
    ("delete list watch", "/events", "team-a"),
    ("*", "*/*", ""),
)
REFUSED = {
    CONTROLLER: (("create", "/pods/binding", "team-a"), ("create", "/pods/eviction", "team-a")),
    SCHEDULER: (
        ("get patch", f"{LWS}/scale", "team-a"),
        ("get patch", "apps/deployments/scale", "team-a"),
        ("patch", PODGROUPS, "team-a"),
        (READ, RRA, "team-a"),
        ("patch", f"{RRA}/status", "team-a"),
    ),
}


def needed(install: str) -> set[Access]:
    """What an install must grant, and all that it may."""
    return {access for need in NEEDS if need.only in ("", install) for access in need.accesses()}


def refused(install: str) -> set[Access]:
    """What an install must not grant."""
    denied = {
        Access(account, verb, resource, namespace)
        for account in ACCOUNTS
        for verbs, resource, namespace in (*REFUSED_TO_BOTH, *REFUSED[account])
        for verb in verbs.split()
    }
    other = {access for need in NEEDS if need.only not in ("", install) for access in need.accesses()}
    return denied | other


def render(install: str) -> list[Object]:
    """The objects that `kubectl kustomize` makes of an install."""
    return [obj for obj in yaml.safe_load_all(rendered(MANIFESTS / install)) if obj]


def rendered(folder: Path) -> str:
    """What `kubectl kustomize` prints."""
    kubectl = Path(sys.executable).with_name("kubectl")
    return subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True).stdout


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [obj for obj in objects if obj["kind"] in kinds]


def deployment(objects: Iterable[Object], name: str) -> Object:
    """The Deployment of that name."""
    return next(obj for obj in of_kind(objects, "Deployment") if obj["metadata"]["name"] == name)


def grants(objects: list[Object]) -> list[Access]:
    """Everything that bindings grant to service accounts, as often as it is granted."""
    roles = {(obj["kind"], obj["metadata"]["name"]): obj for obj in of_kind(objects, "Role", "ClusterRole")}
    return [
        access
        for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
        for rule in roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]["rules"]
        for access in granted(rule, subject["name"], binding["metadata"].get("namespace", ""))
    ]


def granted(rule: Object, account: str, namespace: str) -> Iterator[Access]:
    """What one rule grants."""
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                for name in rule.get("resourceNames") or ("",):
                    yield Access(account, verb, f"{group}/{resource}", namespace, name)
