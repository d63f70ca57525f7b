"""The real control plane for the tests of this folder, and what most of them start with.

Rules:
1. It is started once a run, for this folder only: the rest of the suite does not pay for it.
2. Without it the tests are skipped and say so; with ROLERATIO_REQUIRE_APISERVER=1 they fail instead.
3. Each test works in a namespace of its own; CRDs and nodes are shared.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kubeapi.client import KubeClient
from kubeapi.config import load_config
from tests.controlplane import audit, run, start
from tests.controlplane.plane import Absent, ControlPlane, existing
from tests.manifests.access import MANIFESTS
from tests.shared_data import shared

LWS_CRD = "data/crds/lws/leaderworkerset.x-k8s.io_leaderworkersets.yaml"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the control plane is marked `apiserver`; nobody can forget it."""
    for item in items:
        if isinstance(item, pytest.Function) and "control_plane" in item.fixturenames:
            item.add_marker(pytest.mark.apiserver)


@pytest.fixture(scope="package")
def programs() -> start.Programs:
    """What a control plane is started from."""
    try:
        return start.programs()
    except Absent as absent:
        _missing(str(absent))


@pytest.fixture(scope="package")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with its controllers: $ROLERATIO_TEST_KUBECONFIG's, that of `make test`, or one started here."""
    folder = tmp_path_factory.mktemp("control-plane")
    kubeconfig = os.environ.get("ROLERATIO_TEST_KUBECONFIG")
    if kubeconfig:
        yield existing(Path(kubeconfig), folder)
        return
    if handover := os.environ.get(run.HANDOVER):
        yield run.handed_over(Path(handover))
        return
    try:
        available = start.programs()
    except Absent as absent:
        _missing(str(absent))
    with start.control_plane(available, folder) as plane:
        yield plane


@pytest.fixture(scope="package")
def controller_manager(control_plane: ControlPlane) -> None:
    """Kubernetes's own controllers run; for tests that fail without them."""
    if control_plane.processes and start.CONTROLLER_MANAGER not in control_plane.processes:
        _missing(f"KUBEBUILDER_ASSETS={os.environ['KUBEBUILDER_ASSETS']} holds no {start.CONTROLLER_MANAGER}")


@pytest.fixture(scope="package")
def audit_log(control_plane: ControlPlane) -> Path:
    """Where the API server writes down who asks it for what."""
    log = control_plane.folder / audit.LOG
    if not log.exists():
        _missing("ROLERATIO_TEST_KUBECONFIG names an API server whose audit log is not known here")
    return log


@pytest.fixture(scope="package")
def kube_scheduler(control_plane: ControlPlane) -> Iterator[None]:
    """kube-scheduler runs beside the control plane, as it does in a cluster that was there before."""
    if not control_plane.processes:
        yield
        return
    available = start.programs()
    if start.SCHEDULER not in available:
        _missing(f"KUBEBUILDER_ASSETS={os.environ['KUBEBUILDER_ASSETS']} holds no {start.SCHEDULER}")
    with start.kube_scheduler(control_plane, available):
        yield


@pytest.fixture(scope="package")
def lws_crd(control_plane: ControlPlane) -> None:
    """The CRD of LeaderWorkerSet is served."""
    control_plane.install_crds(shared(LWS_CRD))


@pytest.fixture(scope="module")
def rra_crd(control_plane: ControlPlane) -> Iterator[None]:
    """Our CRD as people install it, and gone again for whoever counts on its absence."""
    crd = MANIFESTS / "base" / "crd.yaml"
    control_plane.install_crds(crd)
    yield
    control_plane.kubectl("delete", "--filename", str(crd))


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own, deleted after it."""
    yield from _namespace(control_plane)


@pytest.fixture
def other_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """One more."""
    yield from _namespace(control_plane)


def _namespace(plane: ControlPlane) -> Iterator[str]:
    name = f"test-{secrets.token_hex(4)}"
    plane.kubectl("create", "namespace", name)
    if start.CONTROLLER_MANAGER in plane.processes:
        plane.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=20s")
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def admin(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """Our client, as the admin."""
    async with KubeClient(load_config(control_plane.kubeconfig), field_manager="test") as client:
        yield client


def _missing(message: str) -> None:
    if os.environ.get("ROLERATIO_REQUIRE_APISERVER") == "1":
        pytest.fail(message)
    pytest.skip(message)
