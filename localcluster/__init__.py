"""A Kubernetes small enough to start in a second: API server, workload controllers, node agent.

Rules:
1. `apiserver` knows no workload; `controllers` and `agent` reach it only through `kubeapi`, like any client.
2. Pods are real processes on this host, and none outlives the cluster.
"""
