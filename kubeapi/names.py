"""Labels, annotations, and well-known names: the vocabulary that the processes share."""

GROUP = "roleratio.dev"

LABEL_SERVICE = "roleratio.dev/service"
LABEL_ROLE = "roleratio.dev/role"
ANNOTATION_PAUSED = "roleratio.dev/paused"
ANNOTATION_RESUME = "roleratio.dev/resume"
ANNOTATION_PROFILE = "roleratio.dev/profile"
ANNOTATION_PODS_PER_GROUP = "roleratio.dev/pods-per-group"
ANNOTATION_GPUS_PER_POD = "roleratio.dev/gpus-per-pod"
# Topology levels, as node labels, that a native group has no field for: of the group, and of each TP group within it.
ANNOTATION_PREFERRED_TOPOLOGY = "roleratio.dev/preferred-topology"
ANNOTATION_GROUP_TOPOLOGY = "roleratio.dev/group-topology"
ANNOTATION_GROUP_PREFERRED_TOPOLOGY = "roleratio.dev/group-preferred-topology"
ANNOTATION_IMAGE_PULL_S = "localcluster.roleratio.dev/image-pull-s"

# The demo's mark on what it puts into somebody else's cluster: a label (its value: the demo's namespace) and a taint.
DEMO = "roleratio.dev/demo"

ROLE_PREFILL = "prefill"
ROLE_DECODE = "decode"
ROLE_ROUTER = "router"

LWS_NAME = "leaderworkerset.sigs.k8s.io/name"
LWS_GROUP_INDEX = "leaderworkerset.sigs.k8s.io/group-index"
LWS_WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
LWS_GROUP_KEY = "leaderworkerset.sigs.k8s.io/group-key"
LWS_REVISION = "leaderworkerset.sigs.k8s.io/template-revision-hash"
LWS_SIZE = "leaderworkerset.sigs.k8s.io/size"

TOPOLOGY_ZONE = "topology.kubernetes.io/zone"
TOPOLOGY_BLOCK = "topology.roleratio.dev/block"
TOPOLOGY_RACK = "topology.roleratio.dev/rack"
HOSTNAME = "kubernetes.io/hostname"

GPU = "nvidia.com/gpu"
NODE_LEASES = "kube-node-lease"

SCHEDULER_NAME = "roleratio-scheduler"
MANAGER_CONTROLLER = "roleratio-controller"
MANAGER_SCHEDULER = "roleratio-scheduler"
MANAGER_LWS = "lws-controller"
MANAGER_DEPLOYMENT = "deployment-controller"
MANAGER_KUBELET = "kubelet"
MANAGER_KUBERNETES = "kube-controller-manager"
