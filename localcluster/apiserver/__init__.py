"""The embedded Kubernetes API server: a static table of kinds over HTTP on 127.0.0.1.

It exists so that the demo starts in seconds. It is strict where clients of ours depend on it (versions,
preconditions, watches, immutable fields) and answers 501 with one line for what it does not do.

    async with ApiServer(port=0, log_dir=Path("logs")) as server:
        server.write_kubeconfig(Path("kubeconfig"))
"""

from localcluster.apiserver.server import ApiServer

__all__ = ["ApiServer"]
