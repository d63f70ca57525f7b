"""The embedded Kubernetes API server: a static table of kinds over HTTP on 127.0.0.1, ready in milliseconds."""

from localcluster.apiserver.refusal import invalid as invalid
from localcluster.apiserver.schema import Models as Models
from localcluster.apiserver.server import ApiServer as ApiServer
