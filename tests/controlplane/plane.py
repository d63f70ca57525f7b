"""What a test may know of a real API server: where it is, how to act as somebody, how to install CRDs.

Rules:
1. The same object stands for a control plane that was started here and for one that was there before.
2. What people do with kubectl is done with kubectl.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.controlplane.process import Process

SERVED_S = 30.0


class Absent(Exception):
    """There is no control plane to be had; one line that says what to do."""


class KubectlError(Exception):
    """kubectl exited with an error; its stderr."""


@dataclass(frozen=True)
class ControlPlane:
    """An API server that is ready. `kubeconfig` is the admin's; `processes` are those started here, by component."""

    url: str
    ca_file: Path | None
    kubeconfig: Path
    folder: Path
    processes: dict[str, Process] = field(default_factory=dict)

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None) -> str:
        """What kubectl prints, as the admin or with another kubeconfig. Raises KubectlError."""
        return _kubectl("--kubeconfig", str(kubeconfig or self.kubeconfig), *arguments, stdin=stdin)

    def token_for(self, namespace: str, service_account: str) -> str:
        """A token of a service account, from the API server's TokenRequest."""
        return self.kubectl("create", "token", service_account, "--namespace", namespace, "--duration=2h").strip()

    def kubeconfig_for(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig that acts as a service account in its namespace."""
        path = self.folder / f"{namespace}.{service_account}.kubeconfig"
        write_kubeconfig(path, self.url, self.ca_file, self.token_for(namespace, service_account), namespace)
        return path

    def install_crds(self, *files: Path) -> None:
        """Install the CRDs of these files and wait until the API server serves them."""
        names = [argument for file in files for argument in ("--filename", str(file))]
        # Client-side apply keeps the whole CRD in an annotation, for which LeaderWorkerSet's is too large.
        applied = json.loads(self.kubectl("apply", "--server-side", "--output=json", *names))
        for crd in applied.get("items", [applied]):
            for version in crd["spec"]["versions"]:
                if version["served"]:
                    self._wait_for(f"/apis/{crd['spec']['group']}/{version['name']}/{crd['spec']['names']['plural']}")

    def _wait_for(self, path: str) -> None:
        deadline_s = time.monotonic() + SERVED_S
        while True:
            try:
                self.kubectl("get", "--raw", f"{path}?limit=1")
                return
            except KubectlError:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(0.1)


def existing(kubeconfig: Path, folder: Path) -> ControlPlane:
    """The API server of a kubeconfig, which is neither started nor ended here. Raises Absent."""
    try:
        view = ("config", "view", "--minify", "--raw", "--flatten", "--output=json")
        text = _kubectl("--kubeconfig", str(kubeconfig), *view)
    except KubectlError as error:
        raise Absent(f"ROLERATIO_TEST_KUBECONFIG={kubeconfig} is no usable kubeconfig: {error}") from error
    own = folder / "admin.kubeconfig"
    own.write_text(text, encoding="utf-8")
    cluster = json.loads(text)["clusters"][0]["cluster"]
    ca_file = None
    if "certificate-authority-data" in cluster:
        ca_file = folder / "ca.crt"
        ca_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return ControlPlane(cluster["server"], ca_file, own, folder)


def write_kubeconfig(path: Path, url: str, ca_file: Path | None, token: str, namespace: str = "default") -> None:
    """A kubeconfig with one context that sends a bearer token."""
    cluster = {"server": url} | ({"certificate-authority": str(ca_file)} if ca_file else {})
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")


def _kubectl(*arguments: str, stdin: str = "") -> str:
    # The environment's own kubectl first: one on PATH may be years older than the server.
    own = Path(sys.executable).with_name("kubectl")
    program = str(own) if own.exists() else shutil.which("kubectl")
    if program is None:
        raise Absent("there is no kubectl; `make venv` installs one")
    result = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, timeout=60)
    if result.returncode:
        raise KubectlError(result.stderr.strip() or f"kubectl exited with {result.returncode}")
    return result.stdout
