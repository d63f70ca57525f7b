"""Starts etcd, kube-apiserver, kube-controller-manager and kube-scheduler on free ports of 127.0.0.1.

Rules:
1. TLS, RBAC and tokens of its own: the API server makes its certificate, whose key also signs service accounts.
2. Each component has the rights of its own user, as in a cluster; only the admin is in system:masters.
3. Whatever was started is ended, also when the rest could not be started.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.controlplane import audit
from tests.controlplane.build import binary
from tests.controlplane.plane import Absent, ControlPlane, KubectlError, write_kubeconfig
from tests.controlplane.process import Process

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
COMPONENTS = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)
USERS = {"admin": "system:masters", f"system:{CONTROLLER_MANAGER}": "", f"system:{SCHEDULER}": ""}

GATES = "--feature-gates=GenericWorkload=true,CompositePodGroup=true,TopologyAwareWorkloadScheduling=true"
APIS = "--runtime-config=scheduling.k8s.io/v1beta1=true,scheduling.k8s.io/v1alpha3=true"
START_S, STOP_S, POLL_S = 60.0, 10.0, 0.05

Programs = Mapping[str, list[str]]


class StartError(Exception):
    """A component ended or did not become ready; one line with what it said last."""


def programs() -> Programs:
    """How to run each component that there is: $KUBEBUILDER_ASSETS, else `make controlplane`. Raises Absent."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        built = binary()
        if not built.exists():
            raise Absent("the test control plane is not built; run `make controlplane`")
        return {name: [str(built), name] for name in COMPONENTS}
    found = {name: [str(Path(assets) / name)] for name in COMPONENTS if (Path(assets) / name).exists()}
    for name in (ETCD, API_SERVER):
        if name not in found:
            raise Absent(f"KUBEBUILDER_ASSETS={assets} holds no {name}; name a folder that does, or unset it")
    return found


@contextmanager
def control_plane(available: Programs, folder: Path, serves: Sequence[str] = (GATES, APIS)) -> Iterator[ControlPlane]:
    """A control plane without a scheduler, ready to be used; `serves`: flags of the API server. Raises StartError."""
    etcd_port, peer_port, api_port = _free_ports(3)
    tokens = {user: secrets.token_urlsafe(24) for user in USERS}
    certificates = folder / "certificates"
    ca_file = certificates / "apiserver.crt"
    plane = ControlPlane(f"https://127.0.0.1:{api_port}", ca_file, folder / "admin.kubeconfig", folder)
    for user, token in tokens.items():
        write_kubeconfig(_kubeconfig_of(plane, user), plane.url, ca_file, token)
    etcd_url = f"http://127.0.0.1:{etcd_port}"
    try:
        _run(plane, available, ETCD, _etcd_flags(folder, etcd_url, f"http://127.0.0.1:{peer_port}"))
        managed = CONTROLLER_MANAGER in available
        _run(plane, available, API_SERVER, [*_api_server_flags(folder, tokens, etcd_url, api_port, managed), *serves])
        _wait(plane, "write its certificate", (certificates / "apiserver.key").exists)
        if managed:
            _run(plane, available, CONTROLLER_MANAGER, _controller_manager_flags(plane))
        client = _Client(plane.url, ca_file, tokens["admin"])
        _wait(plane, "answer /readyz", lambda: client.has("/readyz"))
        if managed:
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            _wait(plane, "make the service account default", lambda: client.has(account))
        yield plane
    finally:
        _end(plane)


def restart_api_server(plane: ControlPlane, served: Sequence[str], serves: Sequence[str]) -> None:
    """Its API server anew, with the same data and other flags for what it serves. Raises StartError."""
    before = plane.processes[API_SERVER]
    before.terminate()
    before.wait(STOP_S)
    argv = [*(flag for flag in before.argv if flag not in served), *serves]
    plane.processes[API_SERVER] = Process(API_SERVER, argv, before.log)
    _wait(plane, "answer /readyz again", lambda: _is_ready(plane))


def _is_ready(plane: ControlPlane) -> bool:
    try:
        return plane.kubectl("get", "--raw", "/readyz") == "ok"
    except KubectlError:
        return False


@contextmanager
def kube_scheduler(plane: ControlPlane, available: Programs, more: Sequence[str] = ()) -> Iterator[Process]:
    """kube-scheduler beside a control plane, with more flags of its own. Raises StartError."""
    process = _run(plane, available, SCHEDULER, [*_follower_flags(plane, SCHEDULER), *more])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_S)


def _etcd_flags(folder: Path, url: str, peer_url: str) -> list[str]:
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server_flags(folder: Path, tokens: Mapping[str, str], etcd_url: str, port: int, managed: bool) -> list[str]:
    token_file = folder / "tokens.csv"
    token_file.write_text("".join(f'{tokens[user]},{user},{user},"{groups}"\n' for user, groups in USERS.items()))
    key = folder / "certificates" / "apiserver.key"
    flags = [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        # Loopback is refused as the address of the service `kubernetes`; this one is for documentation, and unused.
        "--advertise-address=192.0.2.1",
        "--endpoint-reconciler-type=none",
        f"--cert-dir={key.parent}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={token_file}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        *audit.flags(folder),
    ]
    # Without a controller manager nobody makes the service accounts that this admission wants of every pod.
    return flags if managed else [*flags, "--disable-admission-plugins=ServiceAccount"]


def _controller_manager_flags(plane: ControlPlane) -> list[str]:
    return [
        *_follower_flags(plane, CONTROLLER_MANAGER),
        "--use-service-account-credentials",
        f"--root-ca-file={plane.ca_file}",
        # The default of 20 requests a second makes its own start last seconds.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        # Its default is 15 s, and no HorizontalPodAutoscaler is looked at before.
        "--horizontal-pod-autoscaler-sync-period=1s",
        # It makes this folder, by default outside the test's.
        f"--flex-volume-plugin-dir={plane.folder / 'flex-volume'}",
        # Nodes of the tests have no heartbeat; the file of the API server's CA begins with its certificate.
        "--controllers=*,-node-lifecycle-controller,-kube-apiserver-serving-clustertrustbundle-publisher-controller",
    ]


def _follower_flags(plane: ControlPlane, component: str) -> list[str]:
    kubeconfig = _kubeconfig_of(plane, f"system:{component}")
    return [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0", GATES]


def _kubeconfig_of(plane: ControlPlane, user: str) -> Path:
    return plane.folder / f"{user.removeprefix('system:')}.kubeconfig"


def _run(plane: ControlPlane, available: Programs, component: str, flags: list[str]) -> Process:
    process = Process(component, [*available[component], *flags], plane.folder / f"{component}.log")
    plane.processes[component] = process
    return process


def _end(plane: ControlPlane) -> None:
    """All but etcd at once, then etcd: an API server that has lost it waits for it."""
    clients = [process for name, process in plane.processes.items() if name != ETCD]
    for group in (clients, [process for name, process in plane.processes.items() if name == ETCD]):
        for process in group:
            process.terminate()
        for process in group:
            process.wait(STOP_S)


def _wait(plane: ControlPlane, what: str, done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + START_S
    while not done():
        for process in plane.processes.values():
            if not process.running():
                raise StartError(f"{process.name} ended before it could {what}: {process.tail()}")
        if time.monotonic() > deadline_s:
            said = "; ".join(f"{process.name}: {process.tail()}" for process in plane.processes.values())
            raise StartError(f"the control plane did not {what} within {START_S:.0f} s: {said}")
        time.sleep(POLL_S)


class _Client:
    """The little of HTTP that waiting needs."""

    def __init__(self, url: str, ca_file: Path, token: str) -> None:
        self._url = url
        self._context = ssl.create_default_context(cafile=str(ca_file))
        self._headers = {"Authorization": f"Bearer {token}"}

    def has(self, path: str) -> bool:
        """Whether a GET is answered with success."""
        request = urllib.request.Request(self._url + path, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=5, context=self._context):
                return True
        except OSError:
            return False


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, held together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [taken.getsockname()[1] for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()
