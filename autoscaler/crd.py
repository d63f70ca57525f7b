"""The CustomResourceDefinition of `RoleRatioAutoscaler`, made from the models of its spec and its status. Pure.

Rules:
1. A model's docstrings are its descriptions, its defaults and bounds the server's, its rules CEL.
2. The schema is structural: no reference, one type per node, unknown fields are dropped or refused by the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from autoscaler import settings
from autoscaler.reported import Report
from autoscaler.settings import Rule, Spec
from kubeapi.kinds import RRA

Schema = dict[str, Any]

HEADER = "# Made by `roleratio crd` from the settings model; change autoscaler/settings.py instead.\n"

STATUS = "the subresource status"
"""What `lacking` calls it: without it nothing can be told in an object."""

# name, JSONPath, priority (1: only with -o wide), what it says
_COLUMNS = (
    ("Service", ".spec.service", 0, "Value of the label roleratio.dev/service"),
    ("Mode", ".status.mode", 0, "What the controller does with its decisions"),
    ("Prefill", '.status.roles[?(@.name=="prefill")].groups', 0, "ready/desired TP groups"),
    ("Decode", '.status.roles[?(@.name=="decode")].groups', 0, "ready/desired TP groups"),
    ("Ratio", ".status.ratio", 0, "Desired prefill to decode groups"),
    ("Active", '.status.conditions[?(@.type=="ScalingActive")].status', 0, "Whether sizes are computed from demand"),
    ("Why", ".status.lastDecision.summary", 0, "The most telling reason of the last decision"),
    ("Age", ".metadata.creationTimestamp", 0, "Since when the object exists"),
    ("Ready", '.status.conditions[?(@.type=="Ready")].reason', 1, "Whether the service can be scaled, or why not"),
    ("Budget", ".spec.gpuBudget", 1, "GPUs that both roles together may use"),
    ("Bottleneck", ".status.bottleneck", 1, "The role that falls furthest short of the demand"),
    ("Limited", '.status.conditions[?(@.type=="ScalingLimited")].reason', 1, "What keeps the sizes from the demand's"),
    ("Blind", '.status.conditions[?(@.type=="Blind")].status', 1, "Whether a source of metrics cannot be read"),
    ("Foreign", '.status.conditions[?(@.type=="ForeignWriter")].status', 1, "Whether somebody else sets replicas"),
    ("Step", ".status.lastDecision.step", 1, "The change that was last made or, in DryRun, would be"),
)
_COLUMN_TYPES = {"Age": "date", "Budget": "integer"}
_COPIED = ("type", "format", "description", "default", "enum", "pattern", "minLength", "minimum", "maximum", "required")
_MODELS = {model.__name__: model for model in settings.Model.__subclasses__()}


def crd() -> Schema:
    """The whole object, as an API server takes it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{RRA.plural}.{RRA.group}"},
        "spec": {
            "group": RRA.group,
            "scope": "Namespaced",
            "names": {
                "kind": RRA.kind,
                "listKind": f"{RRA.kind}List",
                "plural": RRA.plural,
                "singular": RRA.kind.lower(),
                "shortNames": ["rra"],
            },
            "versions": [_version()],
        },
    }


def crd_yaml() -> str:
    """The same as a file."""
    return HEADER + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: kubectl reads them, people do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _version() -> Schema:
    return {
        "name": RRA.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": "One service of disaggregated LLM inference, whose prefill and decode groups are "
                "scaled as one decision.",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": schema_of(Spec),
                    "status": schema_of(Report),
                },
            }
        },
    }


def _column(name: str, path: str, priority: int, description: str) -> Schema:
    kind = _COLUMN_TYPES.get(name, "string")
    return {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": description}


def schema_of(model: type[BaseModel]) -> Schema:
    """A model as a structural schema."""
    whole = model.model_json_schema(by_alias=True)
    return _structural(whole, whole.get("$defs", {}), model.__name__)


def lacking(crd: Mapping[str, Any]) -> tuple[str, ...]:
    """What our CRD has and one in a cluster has not, as paths of fields; of values `path=value`. Linear.

    Of one that does not serve our version nothing is claimed: its objects cannot be read at all.
    """
    versions = {version["name"]: version for version in crd["spec"]["versions"] if version.get("served")}
    found = versions.get(RRA.version)
    if found is None:
        return ()
    served = found.get("schema", {}).get("openAPIV3Schema", {}).get("properties", {})
    ours = _version()["schema"]["openAPIV3Schema"]["properties"]
    fields = [path for part in ("spec", "status") for path in _lacking(part, ours[part], served.get(part, {}))]
    return tuple(fields) if "status" in found.get("subresources", {}) else (STATUS, *fields)


def _lacking(path: str, ours: Schema, served: Schema) -> Iterator[str]:
    for key, part in ours.get("properties", {}).items():
        found = served.get("properties", {}).get(key)
        if found is None:
            yield f"{path}.{key}"
        else:
            yield from _lacking(f"{path}.{key}", part, found)
    if "items" in ours:
        yield from _lacking(path, ours["items"], served.get("items", {}))
    if "enum" in served:
        yield from (f"{path}={value}" for value in ours.get("enum", ()) if value not in served["enum"])


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any], model: str = "") -> Schema:
    """One node of pydantic's JSON Schema; `model` is the class that it stands for, if any."""
    if "$ref" in node:
        model = node["$ref"].rpartition("/")[2]
        return _structural({**definitions[model], **{k: v for k, v in node.items() if k != "$ref"}}, definitions, model)
    if "anyOf" in node:
        # `X | None`: absent is how a key has no value.
        known = next(choice for choice in node["anyOf"] if choice.get("type") != "null")
        return _structural({**known, **{k: v for k, v in node.items() if k not in ("anyOf", "default")}}, definitions)
    # No text and no items are what a reader makes of absence: not worth a default.
    schema = {key: node[key] for key in _COPIED if key in node and node[key] not in ("", [])}
    schema |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if "exclusiveMinimum" in node:
        schema |= {"minimum": node["exclusiveMinimum"], "exclusiveMinimum": True}
    if "exclusiveMaximum" in node:
        schema |= {"maximum": node["exclusiveMaximum"], "exclusiveMaximum": True}
    if "properties" in node:
        schema["properties"] = {key: _structural(part, definitions) for key, part in node["properties"].items()}
    if isinstance(schema.get("default"), dict):
        # Whole, since the server checks the rules on it as it is; without what has no value.
        schema["default"] = _known(schema["default"])
    if "items" in node:
        schema["items"] = _structural(node["items"], definitions)
    rules = _MODELS[model].rules if model in _MODELS else ()
    return schema | ({"x-kubernetes-validations": [_validation(rule) for rule in rules]} if rules else {})


def _known(values: Schema) -> Schema:
    """Without what has no value, at any depth."""
    return {k: _known(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}


def _validation(rule: Rule) -> Schema:
    """A rule as CEL, its message with the values that break it."""
    # `format`, since the server reckons `string(number)` as endlessly long, hence too costly.
    text = json.dumps(Rule.PLACE.sub("%s", rule.message.replace("%", "%%")))
    values = ", ".join(f"self.{path}" for path in Rule.PLACE.findall(rule.message))
    return {"rule": rule.cel, "messageExpression": f"{text}.format([{values}])"}
