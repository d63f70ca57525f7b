"""Who sends a request to one of our servers, and whether they may: asked of the API server, as Kubernetes' own do.

Rules:
1. A bearer token is reviewed (TokenReview), then its user's access to the path (SubjectAccessReview); both every time:
   a right that is taken away is gone at once.
2. What cannot be asked is not allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubeapi.client import KubeClient
from kubeapi.errors import ApiError
from kubeapi.kinds import ACCESS_REVIEW, TOKEN_REVIEW

_SCHEME = "Bearer "


@dataclass(frozen=True, slots=True)
class Access:
    """The answer: an HTTP status (200: allowed), and one line that says who or why not."""

    status: int
    message: str

    @property
    def allowed(self) -> bool:
        """Whether the request may be answered."""
        return self.status == 200


async def access(client: KubeClient, authorization: str, path: str, verb: str) -> Access:
    """Whether the sender of this Authorization header may do `verb` (get, post) at a path that is no object."""
    token = authorization.removeprefix(_SCHEME) if authorization.startswith(_SCHEME) else ""
    if not token:
        return Access(401, "send a token of this cluster: Authorization: Bearer TOKEN")
    try:
        review = await client.create(TOKEN_REVIEW, {"spec": {"token": token}})
        said = review.get("status") or {}
        if not said.get("authenticated"):
            return Access(401, f"the API server does not know the token: {said.get('error') or 'not authenticated'}")
        user = said["user"]
        spec = {"user": user["username"], "groups": user.get("groups") or [], "uid": user.get("uid", "")}
        asked = {"nonResourceAttributes": {"path": path, "verb": verb}, "extra": user.get("extra") or {}}
        answer = (await client.create(ACCESS_REVIEW, {"spec": spec | asked})).get("status") or {}
    except ApiError as error:
        return Access(503, f"the API server cannot be asked who may do this: {error.message}")
    if answer.get("allowed"):
        return Access(200, user["username"])
    grant = f"grant a ClusterRole with nonResourceURLs: [{path}], verbs: [{verb}]"
    return Access(403, f"{user['username']} may not {verb} {path}; {grant}")
