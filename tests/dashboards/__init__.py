"""The dashboard and the rules, alone and against a real Prometheus."""
