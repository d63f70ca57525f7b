"""Which pods a guest's nodes run: our own, of one namespace, as the demo makes them, and no others.

Rules:
1. Pure; a pod in, one line that says why it is refused out, or None.
2. What is not known to be harmless is refused: whoever may create pods in that cluster must not get to run programs
   on the machine that the agent runs on. So no variable that changes what Python runs, and no probe but of the pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubeapi import names
from kubeapi.client import Object
from localcluster.objects import labels_of

COMMAND = ["python", "-m", "roleratio"]
SUBCOMMAND = "serve"
_ENV = re.compile(r"(POD|LWS)_[A-Z_]+")
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
# What of a container the agent acts on, and what is only a number or a name to it.
_KNOWN = {"name", "image", "imagePullPolicy", "command", "args", "env", "ports", "resources", *_PROBES}
_KNOWN |= {"terminationMessagePath", "terminationMessagePolicy", "volumeMounts", "securityContext"}


def refusal(pod: Object, namespace: str) -> str | None:
    """Why a guest's node does not run this pod, or None."""
    return next(_objections(pod, namespace), None)


def _objections(pod: Object, namespace: str) -> Iterator[str]:
    meta, spec = pod["metadata"], pod["spec"]
    if meta["namespace"] != namespace:
        yield f"this node runs pods of namespace {namespace} alone"
    if labels_of(pod).get(names.DEMO) != namespace:
        yield f"this node runs pods with the label {names.DEMO}={namespace} alone"
    if spec.get("initContainers"):
        yield "this node runs no init containers"
    for container in spec["containers"]:
        for objection in _objections_to(container):
            yield f"container {container['name']}: {objection}"


def _objections_to(container: Object) -> Iterator[str]:
    command, args = container.get("command") or [], container.get("args") or []
    if command != COMMAND or args[:1] != [SUBCOMMAND]:
        yield f"this node runs `{' '.join(COMMAND)} {SUBCOMMAND}` alone, not `{' '.join([*command, *args][:4])}`"
    for entry in container.get("env") or []:
        if not _ENV.fullmatch(entry["name"]):
            yield f"variable {entry['name']!r} is refused; this node passes POD_* and LWS_* alone"
    for kind in _PROBES:
        probe = container.get(kind) or {}
        if "exec" in probe or any("host" in (probe.get(check) or {}) for check in ("httpGet", "tcpSocket")):
            yield f"{kind} is refused; this node asks the pod itself over HTTP or TCP alone"
    for key in container.keys() - _KNOWN:
        yield f"{key} is refused on this node"
