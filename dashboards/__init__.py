"""Grafana dashboard and Prometheus rules, with the module that writes the dashboard. Not part of the wheel."""
