"""What an API server serves instead of a kind that is not there.

Rule: a message to people is made of what is known; a question that goes unanswered makes it shorter, never an error.
"""

from __future__ import annotations

from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError
from kubeapi.kinds import Kind


async def why_not_served(client: KubeClient, kind: Kind) -> str:
    """One line on a kind of a named group that was not found: the server's version, and what it has of it instead."""
    try:
        by = f" by Kubernetes {await client.version()}"
    except ApiError:
        by = ""
    group = await _answer(client, f"/apis/{kind.group}")
    others = [one["version"] for one in group.get("versions", ()) if one["version"] != kind.version]
    served = [version for version in others if await _has(client, kind, version)]
    instead = f", which serves {' and '.join(served)}" if served else ""
    return f"{kind.title} is not served{by}{instead}"


async def _has(client: KubeClient, kind: Kind, version: str) -> bool:
    resources = (await _answer(client, f"/apis/{kind.group}/{version}")).get("resources", ())
    return any(resource["name"] == kind.plural for resource in resources)


async def _answer(client: KubeClient, path: str) -> Object:
    try:
        return await client.read(path)
    except ApiError:
        return {}
