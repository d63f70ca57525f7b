"""What a container's process gets: its arguments and its environment.

Rules:
1. Pure. Variables are resolved in order, and `$(NAME)` refers to those before it, as on Kubernetes.
2. What cannot be resolved (Secrets, ConfigMaps) is an error with one clear line, never an empty string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubeapi.client import Object
from localcluster.nodes import NODE_IP
from localcluster.objects import ENV_LEADER_ADDRESS, annotations_of, labels_of

# What a container image would bring along; nothing else of the agent's own environment reaches a pod.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")

_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ContainerConfigError(Exception):
    """The container's specification cannot be turned into a process; one line says why."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the node knows about a pod that its specification does not say."""

    ip: str
    kubeconfig: str
    inherited: Mapping[str, str]
    leader_ip: str | None = None


def environment(pod: Object, container: Object, around: Surroundings) -> dict[str, str]:
    """The variables of one container. Raises ContainerConfigError."""
    if container.get("envFrom"):
        raise ContainerConfigError(f"container {container['name']}: envFrom is not served; use env with values")
    env = {key: value for key, value in around.inherited.items() if key in INHERITED}
    env |= {"KUBECONFIG": around.kubeconfig, "HOSTNAME": pod["metadata"]["name"]}
    for entry in container.get("env") or []:
        name = entry["name"]
        if name == ENV_LEADER_ADDRESS and around.leader_ip is not None:
            env[name] = around.leader_ip
        elif "valueFrom" in entry:
            env[name] = _field(pod, name, entry["valueFrom"], around)
        else:
            env[name] = expand(entry.get("value") or "", env)
    return env


def command_line(container: Object, env: Mapping[str, str], python: str) -> list[str]:
    """command + args with references expanded; `python` is the interpreter that runs the agent."""
    words = [expand(word, env) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    if not container.get("command"):
        raise ContainerConfigError(
            f"container {container['name']}: no command; images are not run here, so give the command in the pod"
        )
    return [python, *words[1:]] if words[0] == "python" else words


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; `$$` is a dollar sign; an unknown name stays as it is."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(2)
        return "$" if name is None else env.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def leader_name(pod: Object) -> str | None:
    """The pod that LWS_LEADER_ADDRESS names, where a container asks for it."""
    for container in pod["spec"]["containers"]:
        for entry in container.get("env") or []:
            if entry.get("name") == ENV_LEADER_ADDRESS and entry.get("value"):
                name: str = entry["value"].partition(".")[0]
                return name
    return None


def _field(pod: Object, name: str, source: Object, around: Surroundings) -> str:
    path = (source.get("fieldRef") or {}).get("fieldPath")
    if path is None:
        raise ContainerConfigError(f"variable {name}: {', '.join(source)} is not served; use value or fieldRef")
    if subscript := _SUBSCRIPT.fullmatch(path):
        of = labels_of(pod) if subscript.group(1) == "labels" else annotations_of(pod)
        return of.get(subscript.group(2), "")
    fields = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": around.ip,
        "status.podIPs": around.ip,
        "status.hostIP": NODE_IP,
    }
    if path not in fields:
        raise ContainerConfigError(f"variable {name}: unknown fieldPath {path}; use one of {', '.join(fields)}")
    return str(fields[path])
