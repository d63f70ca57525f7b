"""Workload controllers: Deployment, ReplicaSet, LeaderWorkerSet, and a default scheduler.

Rules:
1. One pure planner per kind says what to do; one loop does it (`loop.py`). Nothing is remembered between rounds.
2. They speak to the API server like any client, each with its own field manager.
3. PodGroups are the gang scheduler's business.
"""

from localcluster.controllers.loop import controllers

__all__ = ["controllers"]
