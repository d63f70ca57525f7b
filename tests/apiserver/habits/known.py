"""The one table of differences between the embedded API server and a real one, each with its reason.

Rules:
1. A row names calls (`scenario/call`) and places (`body.spec.x`); `*` stands for one step, `**` for any number.
2. A row of ADDED explains only what the real server says and the embedded one does not.
3. A row that no longer explains anything fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.apiserver.habits.compare import ABSENT, Difference

_ANY_CALL = ("**",)


@dataclass(frozen=True)
class Known:
    """Places that may differ in some calls, and why."""

    why: str
    places: tuple[str, ...]
    calls: tuple[str, ...] = _ANY_CALL

    def explains(self, call: str, difference: Difference) -> bool:
        """Whether this row is about that difference."""
        return any(fits(call) for fits in map(_glob, self.calls)) and any(
            fits(difference.path) for fits in map(_glob, self.places)
        )


def reason(call: str, difference: Difference) -> Known | None:
    """The row of the table that explains a difference."""
    rows = (*KNOWN, *ADDED) if difference.embedded == ABSENT else KNOWN
    return next((row for row in rows if row.explains(call, difference)), None)


def _glob(pattern: str) -> Callable[[str], bool]:
    parts = [re.escape(part).replace(r"\*", "[^.]*") for part in pattern.split("**")]
    expression = re.compile(".*".join(parts))
    return lambda text: expression.fullmatch(text) is not None


_UNSERVED_DEFAULTS = (
    *("dnsPolicy", "enableServiceLinks", "preemptionPolicy", "priority", "serviceAccount", "serviceAccountName"),
    *("tolerations", "tolerations.*", "volumes", "containers.*.imagePullPolicy", "containers.*.volumeMounts"),
    *("containers.*.terminationMessagePath", "containers.*.terminationMessagePolicy"),
)
_SERVICE = ("clusterIPs", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy", "ports.*.targetPort")

ADDED = (
    Known("defaults of a pod that nothing here reads", tuple(f"**spec.{field}" for field in _UNSERVED_DEFAULTS)),
    Known("defaults of a Service that nothing here reads", tuple(f"body.spec.{field}" for field in _SERVICE)),
    Known("what a pod's status says twice, or about eviction by memory", ("**.qosClass", "**.podIPs")),
    Known(
        "a gated pod has a condition that says so; a Table here says it from the gates",
        ("body.status.conditions",),
        ("*/gated", "immutable/gate-off", "table/pod-gated"),
    ),
    Known("an eviction is on record in the pod", ("body.status.conditions",), ("eviction/*",)),
    Known("a node without a kubelet is tainted, and its status has room for one", ("**.taints", "**.daemonEndpoints")),
    Known("the same, where there is nothing else", ("**.spec", "**.status"), ("*/node", "*/node-*", "list/nodes")),
    Known("a node that says its capacity only can allocate as much", ("body.status.allocatable",), ("create/*",)),
    Known("written by controllers of the cluster: to nodes", ("**.annotations",)),
    Known("and to Deployments and ReplicaSets", ("body.status",), ("scale/*", "*/deployment*", "*/replicaset")),
    Known("the finalizer of PodGroups: here none is deleted before its pods", ("**.metadata.finalizers",)),
    Known("a PodGroup has a priority; none is preempted here", ("body.spec",), ("create/podgroup-basic",)),
    Known(
        "a namespace is labelled with its name and deleted by a finalizer in its spec",
        ("body.metadata.labels", "body.spec"),
    ),
    Known("the same, beside other labels", ("**.labels.kubernetes.io/metadata.name",)),
    Known("what is deleted at once is shown as deleted", ("body.metadata.deletionTimestamp",)),
    Known("columns are described", ("**.columnDefinitions.*.description",)),
    Known("a Table of a finished pod says so a second time", ("body.rows.*.conditions",)),
    Known("a Table of one object has its version", ("body.metadata",), ("table/*", "rra-table/one")),
    Known("other kinds, groups and versions are served", ("body.resources.*", "body.groups.**", "body.versions.*")),
    Known("for clients that compare storage", ("body.resources.*.storageVersionHash",)),
    Known("about how it was built, and where it is", ("body.*",), ("discovery/version", "discovery/api")),
    Known("all faults are named; here the first", ("body.blames", "body.blames.*")),
    Known("what is hidden from a selecting watch is shown as it was before", ("body.*.object.metadata.labels",)),
)

KNOWN = (
    Known("items of a list say their kind, as those of custom kinds do there", ("body.items.*.kind", "**.apiVersion")),
    Known(
        "an internal error there; here a 400 that says what is wrong",
        ("code",),
        (
            "create/with-version",
            "patch/strategic-key",
            "patch/strategic-directive",
            "binding/no-target",
            "watch/version-form",
        ),
    ),
    Known(
        "what cannot be read is refused without the name of the field there, a patch of it as a patch",
        ("code", "body.blames.*"),
        (
            *("invalid/*-form", "invalid/*-text", "invalid/env-value", "invalid/lease-time", "invalid/quantity*"),
            *("patch/merge-kind", "patch/merge-dry-bad", "scale/*-text", "status/condition-form"),
            *("status/node-quantity", "update/pod-label-form"),
        ),
    ),
    Known(
        "another name or namespace is another object there", ("code",), ("patch/merge-name", "patch/merge-namespace")
    ),
    Known("there is such a path, for other verbs", ("code",), ("create/all-namespaces",)),
    Known("a finalizer may come late here", ("code",), ("finalizers/add-another",)),
    Known("so may a scheduling gate", ("code", "body.**"), ("immutable/gate-more", "immutable/gate-on")),
    Known(
        "validation here covers what clients of this project send",
        ("code",),
        (
            "create/event-elsewhere",
            "invalid/container-twice",
            "invalid/env-from-nothing",
            "invalid/label-key",
            "watch/initial-without-match",
        ),
    ),
    Known("what its webhook refuses in a cluster that runs LWS", ("code",), ("invalid/lws-size",)),
    Known(
        "fields that a kind does not have are kept here",
        ("code", "body.spec.colour"),
        ("invalid/strict", "invalid/lenient", "rra-refused/strict"),
    ),
    Known(
        "nobody narrows the nodes of a gated pod here",
        ("code", "**"),
        ("immutable/gate-selector", "immutable/gate-off"),
    ),
    Known(
        "there a Scale of a custom kind does not lock its uid; here every Scale does", ("code",), ("scale/l-other-uid",)
    ),
    Known(
        "the field is named less or more exactly",
        ("body.blames.*",),
        (
            "invalid/label-value",
            "immutable/policy",
            "immutable/podgroup-priority",
            "rra-refused/bounds",
            "rra-refused/update-bounds",
        ),
    ),
    Known(
        "a cause without a name of its own",
        ("body.blames.*",),
        (
            "invalid/restart-policy",
            "invalid/lws-replicas",
            "patch/lws-bad",
        ),
    ),
    Known("resource and group are two details there", ("body.details.kind", "body.details.group")),
    Known("the pages of a list are not of one moment here", ("body.items.*",), ("list/snapshot-2",)),
    Known("answers are JSON only here", ("body",), ("list/protobuf",)),
    Known("says that the old one is still leaving", ("body.message",), ("finalizers/same-name",)),
    Known("a path without an API is answered in words, not as a Status", ("body",), ("list/no-group", "list/no-path")),
    Known("a custom kind has no such door; there the object is said to be missing", ("body.**",), ("rra/no-scale",)),
    Known("an object without a spec cannot be read there", ("code",), ("rra-refused/no-spec",)),
    Known(
        "the last version of what goes with its last finalizer",
        ("body.metadata.resourceVersion",),
        ("finalizers/let-go", "namespaces/let-go", "owners/release"),
    ),
    Known("only pods have grace there", ("body.metadata.deletionGracePeriodSeconds",)),
    Known("what is deleted at once has one change more there", ("body.metadata.generation",)),
    Known(
        "an owner waits for what happens to its dependents; here that is at once",
        ("body", "body.**"),
        (
            "owners/leave",
            "delete/delete-podgroup",
        ),
    ),
    Known("a deleted collection is listed", ("body.**",), ("delete/collection",)),
    Known("roles come from labels that no node here has", ("body.rows.*.cells.*",), ("table/node*",)),
    Known(
        "columns of custom kinds are typed, and absent numbers empty",
        ("**.columnDefinitions.*.type", "**.cells.*"),
        ("table/lws-*", "rra-table/*"),
    ),
    Known("namespaces are not deleted together", ("body.resources.namespaces.verbs",), ("discovery/*",)),
    Known("the newest version that is served is preferred", ("body.**preferredVersion.*",), ("discovery/**",)),
    Known("who this server is", ("body.gitVersion",), ("discovery/version",)),
)
