"""The kubeconfig of a local cluster, for kubectl and the official clients."""

import json
from pathlib import Path

_NAME = "localcluster"


def write_kubeconfig(url: str, path: Path) -> None:
    """Write it as JSON, which is YAML."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _NAME, "cluster": {"server": url}}],
        "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME}}],
        "users": [{"name": _NAME, "user": {}}],
        "current-context": _NAME,
    }
    path.write_text(json.dumps(config, indent=2) + "\n")
