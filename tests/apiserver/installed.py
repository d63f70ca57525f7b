"""The processes of an installed overlay, run as its Deployments would run them: same arguments, same account.

Rule: nothing of the container is invented here; what a pod would be told by its cluster is replaced by this machine's.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from aiohttp import ClientError, ClientSession

from kubeapi.client import Object
from tests.controlplane.plane import ControlPlane
from tests.manifests import access
from tests.manifests.access import SYSTEM


class Pod:
    """A container of the manifests as a process: its arguments, its environment, its service account's token."""

    def __init__(self, plane: ControlPlane, install: str, account: str, folder: Path) -> None:
        spec = access.deployment(access.render(install), account)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        values = {
            "POD_NAME": account,
            "POD_UID": f"uid-of-{account}",
            "POD_NAMESPACE": SYSTEM,
            "POD_IP": "127.0.0.1",
        }
        assert {entry["name"] for entry in container["env"]} == set(values)
        arguments = [self._argument(text, values, container) for text in container["args"]]
        self._probed = [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
        self.log = folder / f"{account}.log"
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "roleratio", *arguments],
                cwd=folder,
                env={
                    "PATH": os.defpath,
                    "PYTHONPATH": str(access.ROOT),
                    "KUBECONFIG": str(plane.kubeconfig_for(SYSTEM, account)),
                }
                | values,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid

    def _argument(self, text: str, values: dict[str, str], container: Object) -> str:
        for name, value in values.items():
            text = text.replace(f"$({name})", value)
        return text.replace(f"--port={container['ports'][0]['containerPort']}", f"--port={self.port}")

    async def is_healthy(self) -> bool:
        """Whether its probes are content. A process that has ended is an error."""
        assert self._process.poll() is None, self.said()
        return all([(await self.page(path))[0] == 200 for path in self._probed])

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages; 0 while it does not listen."""
        try:
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as response:
                return response.status, (await response.text()).strip()
        except ClientError:
            return 0, ""

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        return self._process.wait(20)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """As a kubelet stops it; the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(15)
        finally:
            self._process.kill()
