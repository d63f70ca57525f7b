"""The CustomResourceDefinition: kept in manifests/ as the models have it, structural, and described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.crd import crd, crd_yaml, schema_of
from autoscaler.reported import Report
from autoscaler.settings import Spec
from roleratio.cli import main

FILE = Path(__file__).resolve().parents[2] / "manifests" / "base" / "crd.yaml"
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
COPIED = {"type", "format", "description", "default", "enum", "pattern", "minLength", "minimum", "exclusiveMinimum"}
COPIED |= {"maximum", "exclusiveMaximum", "required", "properties", "items", "x-kubernetes-validations"}
COPIED |= {"x-kubernetes-list-type", "x-kubernetes-list-map-keys"}


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for key, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{key}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def test_the_manifest_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == 0
    assert capsys.readouterr().out == crd_yaml() == FILE.read_text(encoding="utf-8"), "run: roleratio crd > " + str(
        FILE
    )
    assert yaml.safe_load(crd_yaml()) == crd()


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_node_is_typed_described_and_of_words_that_a_structural_schema_has(part: str) -> None:
    for path, node in nodes(SCHEMA["properties"][part], part):
        assert node["type"] in {"object", "array", "string", "integer", "number"}, path
        assert set(node) <= COPIED, path
        assert path.endswith("reasons[]") or len(node["description"]) > 5, path


def test_bounds_defaults_and_enums_are_the_models() -> None:
    spec = schema_of(Spec)
    assert spec["required"] == ["service", "profile", "gpuBudget"]
    parts = spec["properties"]
    assert parts["mode"]["default"] == "DryRun"
    assert parts["mode"]["enum"] == ["Off", "DryRun", "Active"]
    quantile = parts["forecastQuantile"]
    assert (quantile["minimum"], quantile["exclusiveMinimum"]) == (0.5, True)
    assert (quantile["maximum"], quantile["exclusiveMaximum"]) == (1, True)
    assert parts["decode"]["properties"]["maxNumSeqs"]["type"] == "integer"
    assert "default" not in parts["decode"]["properties"]["maxNumSeqs"]
    assert parts["decode"]["default"]["maxGroups"] == 8
    assert "maxNumSeqs" not in parts["decode"]["default"]
    assert parts["slo"]["properties"]["itl"]["default"] == {"percentile": 95, "targetMs": 60}


def test_defaults_make_of_the_least_what_the_models_make() -> None:
    written = {"service": "chat", "profile": "p", "gpuBudget": 4}
    filled = with_defaults({"spec": written}, {"properties": {"spec": schema_of(Spec)}})["spec"]
    assert filled == Spec.model_validate(written).model_dump(mode="json", by_alias=True, exclude_none=True)


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """What an API server makes of an object: defaults from the outside in."""
    for key, part in schema.get("properties", {}).items() if isinstance(value, dict) else ():
        if key not in value and "default" in part:
            value[key] = yaml.safe_load(yaml.safe_dump(part["default"]))
        if key in value:
            with_defaults(value[key], part)
    return value


def test_the_status_has_no_defaults_and_lists_by_key() -> None:
    found = dict(nodes(schema_of(Report), "status"))
    assert [path for path, node in found.items() if "default" in node] == []
    keys = {
        path: node["x-kubernetes-list-map-keys"] for path, node in found.items() if "x-kubernetes-list-map-keys" in node
    }
    assert keys == {"status.roles": ["name"], "status.conditions": ["type"]}


def test_rules_are_cel_with_our_words() -> None:
    rules = {
        path: node["x-kubernetes-validations"]
        for path, node in nodes(SCHEMA["properties"]["spec"], "spec")
        if "x-kubernetes-validations" in node
    }
    assert {path: len(found) for path, found in rules.items()} == {
        "spec": 2,
        "spec.ratioBand": 1,
        "spec.metrics": 1,
        "spec.prefill": 1,
        "spec.decode": 1,
    }
    assert rules["spec.ratioBand"] == [
        {
            "rule": "self.min <= self.max",
            "messageExpression": '"min %s is above max %s: swap them or widen the band".format([self.min, self.max])',
        }
    ]
