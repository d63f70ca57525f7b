"""The demo: starts every part as its own process and talks to them only as a user would.

Rules:
1. Children are started, watched and stopped in one place (children.py), whatever way the demo ends.
2. Nothing is asked of a part beyond its public interface: manifests, HTTP pages, its journal.
3. What is shown and reported was measured by the load client or seen through the Kubernetes API.
"""
