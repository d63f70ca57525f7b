"""The rights that scaling one service needs, and which of them somebody lacks: asked of the API server itself.

Rules:
1. A server that reviews no access refuses nobody: nothing is claimed of it.
2. What is lacking is told in the words that a refusal has, with the commands that grant it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoscaler.adapters.act import WORKLOAD_KINDS
from autoscaler.model import Fleet, RoleFleet
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError, Forbidden
from kubeapi.kinds import Kind
from kubeapi.rights import missing_right
from policies.model import ROLES, Code, Reason, Role, Stage

_ACCESS, _SELF = "authorization.k8s.io", "authentication.k8s.io"
OWN = Kind(_ACCESS, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
OTHER = Kind(_ACCESS, "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False)
WHO = Kind(_SELF, "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False)

_ACCOUNT = "system:serviceaccount:"
_READ = (kinds.LWS, kinds.DEPLOYMENT, kinds.POD, kinds.PODGROUP, kinds.NODE)


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource; without a namespace in all of them. `code`: what the lack of it is to a service."""

    verb: str
    kind: Kind
    subresource: str = ""
    namespace: str = ""
    code: Code = Code.WORKLOAD_PROBLEM
    role: Role | None = None


def reads() -> tuple[Right, ...]:
    """What every look needs."""
    return tuple(Right(verb, kind) for kind in _READ for verb in ("list", "watch"))


def writes(fleet: Fleet, namespace: str, *, tells: bool) -> tuple[Right, ...]:
    """What carrying out a decision needs. `tells`: there is an rra, which has a status."""
    rights = [Right("create", kinds.EVENT, "", namespace, Code.REPORT_FAILED)]
    if tells:
        rights.append(Right("patch", kinds.RRA, "status", namespace, Code.REPORT_FAILED))
    for role in ROLES:
        if isinstance(found := fleet[role], RoleFleet):
            rights.append(Right("patch", WORKLOAD_KINDS[found.kind], "scale", namespace, Code.WRITE_REFUSED, role))
            if found.pod_group:
                rights.append(Right("patch", kinds.PODGROUP, "", namespace, Code.WRITE_REFUSED, role))
    return tuple(rights)


async def lacking(client: KubeClient, rights: Iterable[Right], user: str | None = None) -> tuple[Reason, ...]:
    """A reason for each right that `user` (else: whoever the client is) has not, in their order.

    Raises Forbidden when the client may not ask about somebody else.
    """
    asked = tuple(rights)
    allowed = await asyncio.gather(*(_is_allowed(client, right, user) for right in asked))
    denied = [right for right, yes in zip(asked, allowed, strict=True) if not yes]
    who = (user or await _own_name(client)) if denied else ""
    return tuple(_reason(right, who) for right in denied)


async def _is_allowed(client: KubeClient, right: Right, user: str | None) -> bool:
    attributes = {"verb": right.verb, "group": right.kind.group, "resource": right.kind.plural}
    attributes |= {"subresource": right.subresource} if right.subresource else {}
    attributes |= {"namespace": right.namespace} if right.namespace else {}
    spec: Object = {"resourceAttributes": attributes}
    if user is not None:
        spec |= {"user": user, "groups": _groups(user)}
    try:
        review = await client.create(OTHER if user is not None else OWN, {"spec": spec})
    except ApiError as error:
        if user is not None and isinstance(error, Forbidden):
            raise
        return True
    status: Mapping[str, object] = review.get("status") or {}
    return status.get("allowed") is not False


def _groups(user: str) -> list[str]:
    """The groups that a user always has."""
    if not user.startswith(_ACCOUNT):
        return ["system:authenticated"]
    namespace = user.removeprefix(_ACCOUNT).partition(":")[0]
    return ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]


async def _own_name(client: KubeClient) -> str:
    try:
        return str((await client.create(WHO, {}))["status"]["userInfo"]["username"])
    except (ApiError, KeyError, TypeError):
        return "NAME"


def _reason(right: Right, user: str) -> Reason:
    resource = f"{right.kind.plural}/{right.subresource}".removesuffix("/")
    group = f' in API group "{right.kind.group}"'
    where = f' in the namespace "{right.namespace}"' if right.namespace else ""
    refusal = f'User "{user}" cannot {right.verb} resource "{resource}"{group}{where}'
    stage = Stage.OBSERVE if right.code is Code.WORKLOAD_PROBLEM else Stage.ACT
    return Reason(stage, right.code, right.role, {"why": missing_right(refusal)})
