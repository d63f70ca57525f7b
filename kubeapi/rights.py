"""A refusal by the API server's authorizer, in the words that people can act on."""

from __future__ import annotations

import re

_REFUSAL = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_ACCOUNT = "system:serviceaccount:"


def missing_right(message: str) -> str:
    """`cannot VERB RESOURCE in namespace NS`, what the server said, and the commands that grant it.

    A message that is not of the authorizer (a quota, an admission rule) stays as it is.
    """
    found = _REFUSAL.search(message)
    if found is None:
        return message
    verb, resource, namespace = found["verb"], found["resource"], found["namespace"]
    where = f"in namespace {namespace}" if namespace else "in the whole cluster"
    plural, _, subresource = resource.partition("/")
    full = f"{plural}.{found['group']}" if found["group"] else plural
    full += f"/{subresource}" if subresource else ""
    kind, scope = ("role", f" --namespace={namespace}") if namespace else ("clusterrole", "")
    name = f"roleratio-{verb}-{resource.replace('/', '-')}"
    user = found["user"]
    account = user.removeprefix(_ACCOUNT)
    subject = f"--serviceaccount={account}" if account != user else f"--user={user}"
    grant = (
        f"kubectl create {kind} {name}{scope} --verb={verb} --resource={full} && "
        f"kubectl create {kind}binding {name}{scope} --{kind}={name} {subject}"
    )
    return f"cannot {verb} {resource} {where}: {message}; grant it with: {grant}"
