"""Where the API server is and how to speak to it, from the official client's own loaders."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kubeapi.errors import ApiError

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


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
    loaded = _load(kubeconfig, context)

    def authorization() -> str | None:
        return _authorization(loaded)

    def refresh() -> None:
        nonlocal loaded
        loaded = _load(kubeconfig, context)

    server = str(loaded.host).rstrip("/")
    return Config(server, authorization, _ssl_context(loaded) if server.startswith("https") else None, refresh)


def own_namespace() -> str:
    """The namespace of the pod that this process runs in; `default` outside of a cluster."""
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def _load(kubeconfig: str | Path | None, context: str | None) -> Any:
    """A Configuration of the official client."""
    from kubernetes import client
    from kubernetes import config as loaders
    from kubernetes.config.config_exception import ConfigException

    load: Any = loaders
    loaded: Any = client.Configuration()
    try:
        if kubeconfig or os.environ.get("KUBECONFIG") or not os.environ.get("KUBERNETES_SERVICE_HOST"):
            path = str(kubeconfig) if kubeconfig else None
            load.load_kube_config(config_file=path, context=context, client_configuration=loaded)
        else:
            load.load_incluster_config(client_configuration=loaded)
    except (ConfigException, OSError, yaml.YAMLError, TypeError, ValueError, KeyError, AttributeError) as error:
        # The loader stumbles, in many ways, over a file that is no kubeconfig or is just being written.
        wanted = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise ApiError(0, "NoConfig", f"no usable kubeconfig at {wanted}: {_one_line(error)}") from error
    return loaded


def _authorization(loaded: Any) -> str | None:
    # Without a user name the official client makes "Basic Og==" of nothing.
    basic = loaded.get_basic_auth_token() if loaded.username else None
    # The name of the token's entry depends on the official client's version; asking for it refreshes it.
    keys = (loaded.get_api_key_with_prefix(name) for name in ("BearerToken", "authorization"))
    value: str | None = next((key for key in keys if key), None) or basic
    return value


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
