"""Where the API server is and how to speak to it, from the official client's own loaders."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kubeapi.errors import ApiError

# Where a kubelet puts a pod's own credentials: token, ca.crt, namespace.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Config:
    """Server URL and credentials. `authorization` is asked before every request, so tokens may rotate;
    `refresh` reads them again from where they came, after the server has refused them.
    """

    server: str
    authorization: Callable[[], str | None] = field(default=lambda: None)
    ssl_context: ssl.SSLContext | None = None
    refresh: Callable[[], None] = field(default=lambda: None)


def load_config(kubeconfig: str | Path | None = None, context: str | None = None) -> Config:
    """The configuration that kubectl would use: FILE, $KUBECONFIG, ~/.kube/config, else the pod's own.

    Raises ApiError (status 0, reason NoConfig) with one line that names what was looked for.
    """
    if kubeconfig or os.environ.get("KUBECONFIG") or not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _config(lambda: _from_kubeconfig(kubeconfig, context))
    return load_in_cluster()


def load_in_cluster(folder: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration of a pod: the server from KUBERNETES_SERVICE_HOST and _PORT, credentials from `folder`.

    The token is read again once a minute, and whenever the server refuses it. Raises ApiError (NoConfig).
    """
    return _config(lambda: _from_pod(folder, environ))


def _config(load: Callable[[], Any]) -> Config:
    loaded = load()

    def authorization() -> str | None:
        return _authorization(loaded)

    def refresh() -> None:
        nonlocal loaded
        loaded = load()

    server = str(loaded.host).rstrip("/")
    return Config(server, authorization, _ssl_context(loaded) if server.startswith("https") else None, refresh)


def own_namespace() -> str:
    """The namespace of the pod that this process runs in; `default` outside of a cluster."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def _from_kubeconfig(kubeconfig: str | Path | None, context: str | None) -> Any:
    """A Configuration of the official client."""
    from kubernetes import client
    from kubernetes import config as loaders
    from kubernetes.config.config_exception import ConfigException

    load: Any = loaders
    loaded: Any = client.Configuration()
    path = str(kubeconfig) if kubeconfig else None
    try:
        load.load_kube_config(config_file=path, context=context, client_configuration=loaded)
    except (ConfigException, OSError, yaml.YAMLError, TypeError, ValueError, KeyError, AttributeError) as error:
        # The loader stumbles, in many ways, over a file that is no kubeconfig or is just being written.
        wanted = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise ApiError(0, "NoConfig", f"no usable kubeconfig at {wanted}: {_one_line(error)}") from error
    return loaded


def _from_pod(folder: Path, environ: Mapping[str, str]) -> Any:
    """A Configuration of the official client."""
    from kubernetes import client
    from kubernetes.config import incluster_config
    from kubernetes.config.config_exception import ConfigException

    loaded: Any = client.Configuration()
    loader: Any = incluster_config
    try:
        loader.InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt"), environ=environ).load_and_set(
            loaded
        )
    except (ConfigException, OSError, ValueError) as error:
        raise ApiError(0, "NoConfig", f"no usable service account at {folder}: {_one_line(error)}") from error
    return loaded


def _authorization(loaded: Any) -> str | None:
    """The header's value. Raises ApiError (NoConfig) when the token's file is gone."""
    from kubernetes.config.config_exception import ConfigException

    # Without a user name the official client makes "Basic Og==" of nothing.
    basic = loaded.get_basic_auth_token() if loaded.username else None
    # The name of the token's entry depends on the official client's version; asking for it refreshes it.
    names = ("BearerToken", "authorization")
    try:
        value: str | None = next((key for name in names if (key := loaded.get_api_key_with_prefix(name))), None)
    except (ConfigException, OSError, ValueError) as error:
        raise ApiError(0, "NoConfig", f"the token cannot be read again: {_one_line(error)}") from error
    # A file written by hand ends with a line end, which no header may hold.
    return value.strip() if value else basic


def _ssl_context(loaded: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=loaded.ssl_ca_cert or None)
    if not loaded.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if loaded.cert_file:
        context.load_cert_chain(loaded.cert_file, loaded.key_file or None)
    return context


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
