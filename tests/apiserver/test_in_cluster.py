"""A pod's own configuration: server from the environment, token and CA from files that are replaced under way."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.config import load_in_cluster
from kubeapi.errors import ApiError, Unauthorized
from tests.apiserver.two_services import until
from tests.controlplane.plane import ControlPlane


class Mount:
    """What a kubelet mounts into a pod, and what it tells it of the server."""

    def __init__(self, plane: ControlPlane, folder: Path, namespace: str) -> None:
        self.folder = folder
        address = urlsplit(plane.url)
        self.environ = {"KUBERNETES_SERVICE_HOST": address.hostname or "", "KUBERNETES_SERVICE_PORT": str(address.port)}
        if plane.ca_file is not None:
            shutil.copy(plane.ca_file, folder / "ca.crt")
        (folder / "namespace").write_text(namespace)

    def put(self, token: str) -> None:
        """As a kubelet does it: the file is whole at every moment."""
        new = self.folder / "token.new"
        new.write_text(token)
        new.rename(self.folder / "token")


@pytest.fixture
def mount(control_plane: ControlPlane, controller_manager: None, tmp_path: Path, namespace: str) -> Mount:
    control_plane.kubectl("create", "rolebinding", "reads", "--namespace", namespace, "--clusterrole=view",
                          f"--serviceaccount={namespace}:default")  # fmt: skip
    return Mount(control_plane, tmp_path, namespace)


def secret_for(plane: ControlPlane, namespace: str, name: str) -> str:
    """A Secret to which tokens can be bound: they are void when it is gone. Its UID."""
    plane.kubectl("create", "secret", "generic", name, "--namespace", namespace)
    return plane.kubectl("get", "secret", name, "--namespace", namespace, "--output=jsonpath={.metadata.uid}")


def token_bound_to(plane: ControlPlane, namespace: str, secret: str) -> str:
    bound = ("--bound-object-kind=Secret", f"--bound-object-name={secret}")
    return plane.kubectl("create", "token", "default", "--namespace", namespace, *bound).strip()


async def refused(client: KubeClient, namespace: str) -> bool:
    try:
        await client.list(kinds.POD, namespace)
    except Unauthorized:
        return True
    return False


async def test_a_token_that_is_void_is_read_again(control_plane: ControlPlane, mount: Mount, namespace: str) -> None:
    """The first one as written by hand, with a newline, the second one as the kubelet writes it."""
    secret_for(control_plane, namespace, "first")
    secret_for(control_plane, namespace, "second")
    mount.put(token_bound_to(control_plane, namespace, "first") + "\n")
    async with KubeClient(load_in_cluster(mount.folder, mount.environ), field_manager="test") as client:
        assert (await client.list(kinds.POD, namespace)).items == []
        control_plane.kubectl("delete", "secret", "first", "--namespace", namespace)
        # The server keeps a verdict on a token for ten seconds.
        await until(lambda: refused(client, namespace), "the old token is void", 20)
        mount.put(token_bound_to(control_plane, namespace, "second"))
        assert (await client.list(kinds.POD, namespace)).items == []


async def test_a_file_that_is_gone_is_an_error_and_not_the_end(
    control_plane: ControlPlane, mount: Mount, namespace: str
) -> None:
    mount.put(control_plane.token_for(namespace, "default"))
    config = load_in_cluster(mount.folder, mount.environ)
    (mount.folder / "token").unlink()
    with pytest.raises(ApiError, match=f"no usable service account at {mount.folder}: Service token file") as error:
        config.refresh()
    assert (error.value.status, error.value.reason) == (0, "NoConfig")
    async with KubeClient(config, field_manager="test") as client:
        assert (await client.list(kinds.POD, namespace)).items == [], "the token that was read is still good"


@pytest.mark.parametrize("lacks", ["token", "ca.crt", "KUBERNETES_SERVICE_PORT"])
def test_what_is_lacking_is_named(control_plane: ControlPlane, mount: Mount, namespace: str, lacks: str) -> None:
    mount.put("t")
    environ: Object = {key: value for key, value in mount.environ.items() if key != lacks}
    (mount.folder / lacks).unlink(missing_ok=True)
    with pytest.raises(ApiError) as error:
        load_in_cluster(mount.folder, environ)
    assert str(mount.folder) in error.value.message
    words = {"token": "token file", "ca.crt": "certification file", "KUBERNETES_SERVICE_PORT": "host/port is not set"}
    assert words[lacks] in error.value.message
