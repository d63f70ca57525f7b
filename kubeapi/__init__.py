"""A thin asynchronous Kubernetes client over raw JSON.

Rules:
1. Objects are plain dicts, exactly as the API server sent them.
2. Every failure is an `ApiError` of `kubeapi.errors`; `retry.py` says what is tried again before, and how often.
3. Nothing here knows of roles, gangs or LLMs beyond the names in `names.py`.
"""
