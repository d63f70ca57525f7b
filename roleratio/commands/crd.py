"""`roleratio crd`: the CustomResourceDefinition of RoleRatioAutoscaler, as YAML."""

from __future__ import annotations

import argparse

EXAMPLE = "roleratio crd | kubectl apply --server-side -f -"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from autoscaler.crd import crd_yaml

    print(crd_yaml(), end="")
    return 0
