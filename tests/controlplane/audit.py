"""Who asked the API server for what: the flags that make it keep an audit log, and a reader of the log.

Rules:
1. Kept are the requests of service accounts that are not the cluster's own, without their bodies.
2. A request is one row, at the time when it came in, however long it is answered; a watch is there once it is open.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOG = "audit.log"
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
    ],
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `what` is `verb group/plural[/subresource]`, or `verb path` where the path names no resource."""

    at_s: float
    what: str
    namespace: str
    name: str


def flags(folder: Path) -> list[str]:
    """The API server's flags; its log will be LOG in `folder`."""
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(_POLICY), encoding="utf-8")
    return [f"--audit-policy-file={policy}", f"--audit-log-path={folder / LOG}"]


def asked(log: Path, namespace: str, account: str, since_s: float) -> list[Asked]:
    """What a service account has asked for since a moment (seconds since the epoch). Linear in the log."""
    user = f"system:serviceaccount:{namespace}:{account}"
    rows = {event["auditID"]: _row(event) for event in _events(log) if event["user"]["username"] == user}
    return sorted((row for row in rows.values() if row.at_s >= since_s), key=lambda row: row.at_s)


def _events(log: Path) -> Iterator[dict[str, Any]]:
    with log.open(encoding="utf-8") as lines:
        # The last line may still be on its way.
        yield from (json.loads(line) for line in lines if line.endswith("\n"))


def _row(event: dict[str, Any]) -> Asked:
    about = event.get("objectRef") or {}
    parts = (about.get("apiGroup", ""), about.get("resource", ""), about.get("subresource", ""))
    what = "/".join(parts).rstrip("/") if about else event["requestURI"]
    at = datetime.fromisoformat(event["requestReceivedTimestamp"]).astimezone(UTC)
    return Asked(at.timestamp(), f"{event['verb']} {what}", about.get("namespace", ""), about.get("name", ""))
