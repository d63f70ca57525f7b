"""Router, prefill and decode workers, their engines, and the KV transfer between them.

Rules:
1. `engine.py` is pure: it is given `now_s` and the profile; everything else here is an edge.
2. A worker stays small: `rank.py` needs asyncio only, workers add aiohttp; `discovery.py` alone knows Kubernetes.
3. No request is lost on a scale-down: who drains finishes what it has and refuses what is new.
"""
