"""The node agent: virtual nodes, and pods that are real processes.

Rules:
1. The order of a pod's life is in `pod.py`; what its process gets, is asked and reports is in pure files.
2. No process outlives the agent, however the agent ends.
3. Not served, and said so where it matters: init containers, volumes, Secrets, preStop hooks.
"""

from localcluster.agent.node_agent import node_agent

__all__ = ["node_agent"]
