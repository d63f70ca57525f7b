"""The pure parts of the API server: selectors, patches, managedFields, schema and tables."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeapi.kinds import DEPLOYMENT, LWS, POD, PODGROUP, SERVICE, Kind
from localcluster.ages import human_duration
from localcluster.apiserver.kinds import SERVED, Served
from localcluster.apiserver.managed import fields_v1, leaves, record
from localcluster.apiserver.patch import json_patch, merge_patch, strategic_merge_patch
from localcluster.apiserver.refusal import Refusal
from localcluster.apiserver.schema import default, validate
from localcluster.apiserver.selectors import predicate, selector_text
from localcluster.apiserver.table import table

Object = dict[str, Any]

KEYS = st.sampled_from(["a", "b", "c", "name"])
LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
OBJECTS = st.dictionaries(KEYS, JSON, max_size=4)
FULL = st.dictionaries(
    KEYS,
    st.recursive(st.integers(0, 3), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=6),
    max_size=4,
)


def row(kind: Kind) -> Served:
    return next(served for served in SERVED if served.kind == kind)


def labelled(**labels: str) -> Object:
    return {"metadata": {"name": "n", "labels": labels}, "spec": {"nodeName": "host-1", "on": True}}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("a=1", True),
        ("a==1,b=2", True),
        ("a=2", False),
        ("a!=1", False),
        ("missing!=1", True),
        ("a in (1, 3)", True),
        ("a in (2,3)", False),
        ("a notin (2,3),b", True),
        ("missing notin (1)", True),
        ("!missing", True),
        ("!a", False),
        ("missing", False),
    ],
)
def test_label_selectors(selector: str, expected: bool) -> None:
    matches = predicate(selector, "", ())
    assert matches is not None
    assert matches(labelled(a="1", b="2")) is expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("spec.nodeName=host-1", True),
        ("spec.nodeName!=host-1", False),
        ("spec.nodeName=host-1,status.phase=", True),
        ("status.phase!=Failed", True),
        ("spec.on=true", True),
    ],
)
def test_field_selectors(selector: str, expected: bool) -> None:
    matches = predicate("", selector, ("spec.nodeName", "status.phase", "spec.on"))
    assert matches is not None
    assert matches(labelled()) is expected


@pytest.mark.parametrize(("labels", "fields"), [("a=b=c", ""), ("in (a)", ""), ("", "spec.x=1"), ("", "nonsense")])
def test_a_selector_that_cannot_be_read_is_refused(labels: str, fields: str) -> None:
    with pytest.raises(Refusal) as refusal:
        predicate(labels, fields, ("spec.nodeName",))
    assert refusal.value.code == 400


def test_a_selector_object_as_text() -> None:
    rules = [{"key": "r", "operator": "In", "values": ["p", "d"]}, {"key": "x", "operator": "DoesNotExist"}]
    text = selector_text({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": rules})
    assert text == "a=1,b=2,r in (p,d),!x"
    matches = predicate(text, "", ())
    assert matches is not None
    assert matches(labelled(a="1", b="2", r="d"))


def test_no_selector_is_no_predicate() -> None:
    assert predicate("", "", ()) is None


# -- patches


def test_merge_patch_examples_of_the_rfc() -> None:
    original = {"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"}, "tags": ["a", "b"]}
    patch = {"title": "Hello!", "phone": "1", "author": {"familyName": None}, "tags": ["a"]}
    expected = {"title": "Hello!", "author": {"givenName": "John"}, "tags": ["a"], "phone": "1"}
    assert merge_patch(original, patch) == expected
    assert merge_patch({"a": [1]}, {"a": {"b": {"c": None}}}) == {"a": {"b": {}}}


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_is_idempotent_and_leaves_the_original_alone(original: Object, patch: Object) -> None:
    before = deepcopy(original)
    once = merge_patch(original, patch)
    assert merge_patch(once, patch) == once
    assert original == before


CONTAINERS = {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"containers": [{"name": "b", "image": "2"}]}, [CONTAINERS["containers"][0], {"name": "b", "image": "2"}]),
        ({"containers": [{"name": "c"}]}, [*CONTAINERS["containers"], {"name": "c"}]),
        ({"containers": [{"name": "a", "$patch": "delete"}]}, [{"name": "b"}]),
        ({"containers": [{"$patch": "replace"}, {"name": "z"}]}, [{"name": "z"}]),
        ({"containers": [{"name": "a", "image": None, "env": [{"name": "X", "$patch": "delete"}]}]}, None),
        ({"$setElementOrder/containers": [{"name": "a"}]}, CONTAINERS["containers"]),
    ],
)
def test_strategic_merge_of_lists_by_key(patch: Object, expected: list[Any] | None) -> None:
    expected = [{"name": "a", "env": []}, {"name": "b"}] if expected is None else expected
    before = deepcopy(CONTAINERS)
    assert strategic_merge_patch(CONTAINERS, patch)["containers"] == expected
    assert before == CONTAINERS


def test_strategic_merge_of_the_rest() -> None:
    spec = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "finalizers": ["a"]}
    patch = {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "finalizers": ["b"]}
    assert strategic_merge_patch(spec, patch) == {"strategy": {"type": "Recreate"}, "finalizers": ["b", "a"]}
    assert strategic_merge_patch(spec, {"$deleteFromPrimitiveList/finalizers": ["a"]})["finalizers"] == []
    assert strategic_merge_patch(spec, {"strategy": {"$patch": "replace", "x": 1}})["strategy"] == {"x": 1}
    service = {"ports": [{"port": 80, "name": "a"}]}
    assert strategic_merge_patch(service, {"ports": [{"port": 80, "name": "b"}]})["ports"][0]["name"] == "b"
    tolerations = {"tolerations": [{"key": "a"}]}
    assert strategic_merge_patch(tolerations, {"tolerations": [{"key": "b"}]})["tolerations"] == [{"key": "b"}]
    with pytest.raises(Refusal, match="merge key: name"):
        strategic_merge_patch(CONTAINERS, {"containers": [{"image": "x"}]})


@given(OBJECTS, OBJECTS)
def test_without_keyed_lists_a_strategic_patch_is_a_merge_patch(original: Object, patch: Object) -> None:
    original, patch = _without_lists_of_objects(original), _without_lists_of_objects(patch)
    assert strategic_merge_patch(original, patch) == merge_patch(original, patch)


def _without_lists_of_objects(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_lists_of_objects(item) for key, item in value.items()}
    return "list" if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/b", "value": 1}], {"a": [1, 2], "m/n": 0, "b": 1}),
        ([{"op": "add", "path": "/a/1", "value": 9}], {"a": [1, 9, 2], "m/n": 0}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3], "m/n": 0}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2], "m/n": 0}),
        ([{"op": "replace", "path": "/m~1n", "value": 5}], {"a": [1, 2], "m/n": 5}),
        ([{"op": "move", "from": "/a", "path": "/c"}], {"c": [1, 2], "m/n": 0}),
        ([{"op": "copy", "from": "/a/1", "path": "/a/0"}], {"a": [2, 1, 2], "m/n": 0}),
        ([{"op": "test", "path": "/a/1", "value": 2}, {"op": "remove", "path": "/a"}], {"m/n": 0}),
        ([{"op": "replace", "path": "", "value": {"x": 1}}], {"x": 1}),
    ],
)
def test_json_patch(operations: list[Object], expected: Object) -> None:
    original = {"a": [1, 2], "m/n": 0}
    assert json_patch(original, operations) == expected
    assert original == {"a": [1, 2], "m/n": 0}


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ({"op": "add"}, 400),
        ([{"op": "leap", "path": "/a"}], 422),
        ([{"op": "add", "path": "/a"}], 422),
        ([{"op": "add", "path": "a", "value": 1}], 400),
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "remove", "path": "/none"}], 422),
        ([{"op": "replace", "path": "/l/7", "value": 1}], 422),
        ([{"op": "add", "path": "/a/b", "value": 1}], 422),
        ([{"op": "add", "path": "/l/x", "value": 1}], 422),
    ],
)
def test_a_json_patch_that_cannot_be_applied(operations: Any, code: int) -> None:
    with pytest.raises(Refusal) as refusal:
        json_patch({"a": 1, "l": [1]}, operations)
    assert refusal.value.code == code


@given(OBJECTS, OBJECTS)
def test_a_json_patch_of_adds_reaches_any_object(original: Object, wanted: Object) -> None:
    operations = [{"op": "remove", "path": f"/{key}"} for key in original]
    operations += [{"op": "add", "path": f"/{key}", "value": value} for key, value in wanted.items()]
    assert json_patch(original, operations) == wanted


# -- managedFields


def written(spec: Object, fields: list[Object] | None = None) -> Object:
    meta = {"name": "x", "managedFields": fields or []}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def test_a_changed_field_changes_its_manager() -> None:
    first = written({"replicas": 1, "template": {"image": "a"}})
    fields = record(None, first, manager="kubectl", subresource="", now="t1")
    second = written({"replicas": 2, "template": {"image": "a"}})
    old = written(first["spec"], fields)
    after = record(old, second, manager="roleratio-controller", subresource="scale", now="t2")
    assert [(entry["manager"], entry.get("subresource"), entry["time"]) for entry in after] == [
        ("kubectl", None, "t1"),
        ("roleratio-controller", "scale", "t2"),
    ]
    assert after[0]["fieldsV1"] == {"f:spec": {"f:template": {"f:image": {}}}}
    assert after[1]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    assert after[1] | {"operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1"} == after[1]


def test_the_same_value_again_records_nothing() -> None:
    first = written({"replicas": 1})
    old = written({"replicas": 1}, record(None, first, manager="a", subresource="", now="t1"))
    assert record(old, written({"replicas": 1}), manager="b", subresource="", now="t2") == [
        *old["metadata"]["managedFields"]
    ]


@given(st.lists(st.tuples(st.sampled_from(["m1", "m2", "m3"]), FULL), min_size=1, max_size=6))
def test_every_leaf_has_exactly_one_manager_the_last_to_change_it(writes: list[tuple[str, Object]]) -> None:
    old: Object | None = None
    owner: dict[Any, str] = {}
    for manager, spec in writes:
        before = leaves(old["spec"]) if old else {}
        new = written(spec)
        new["metadata"]["managedFields"] = record(old, new, manager=manager, subresource="", now="t")
        after = leaves(spec)
        owner = {path: owner[path] if before.get(path) == value else manager for path, value in after.items()}
        old = new
    entries = old["metadata"]["managedFields"] if old else []
    claimed = [(path, entry["manager"]) for entry in entries for path in leaves(entry["fieldsV1"].get("f:spec", {}))]
    named = {tuple(step.removeprefix("f:") for step in path): manager for path, manager in claimed}
    assert len(claimed) == len(named)
    assert named == owner


@given(st.sets(st.lists(KEYS, min_size=2, max_size=2).map(tuple), max_size=5))
def test_fields_v1_keeps_every_path(paths: set[tuple[str, ...]]) -> None:
    tree = fields_v1(paths)
    assert {tuple(step.removeprefix("f:") for step in path) for path in leaves(tree)} == paths


# -- schema


def workload(kind: Kind, spec: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, "spec": spec}


CONTAINER = {"name": "c", "image": "i"}
POD_SPEC = {"containers": [CONTAINER]}


def test_defaults_of_a_pod_and_of_an_lws() -> None:
    pod = workload(POD, dict(POD_SPEC))
    default(row(POD), pod)
    assert pod["spec"] == POD_SPEC | {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler",
    }
    assert pod["status"] == {"phase": "Pending"}
    lws = workload(LWS, {"leaderWorkerTemplate": {"workerTemplate": {"spec": POD_SPEC}}})
    default(row(LWS), lws)
    assert (lws["spec"]["replicas"], lws["spec"]["leaderWorkerTemplate"]["size"]) == (1, 1)


def test_a_recreate_strategy_gets_no_rolling_update() -> None:
    deployment = workload(DEPLOYMENT, {"strategy": {"type": "Recreate"}})
    default(row(DEPLOYMENT), deployment)
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_defaults_are_copies() -> None:
    first, second = workload(SERVICE, {}), workload(DEPLOYMENT, {})
    default(row(SERVICE), first)
    default(row(DEPLOYMENT), second)
    second["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = 7
    third = workload(DEPLOYMENT, {})
    default(row(DEPLOYMENT), third)
    assert third["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == "25%"


SELECTED = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}}
LWS_SPEC = {"leaderWorkerTemplate": {"workerTemplate": {"spec": POD_SPEC}}}
GANG = {"schedulingPolicy": {"gang": {"minCount": 2}}}


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        (POD, {}, "spec.containers"),
        (POD, {"containers": [{"name": "c"}]}, "spec.containers[0].image"),
        (POD, {"containers": [{"name": "../c", "image": "i"}]}, "spec.containers[0].name"),
        (POD, {"containers": [CONTAINER | {"env": [{"value": "v"}]}]}, "spec.containers[0].env[0].name"),
        (POD, {"containers": [CONTAINER | {"resources": {"limits": {"cpu": "1 core"}}}]}, "resources.limits.cpu"),
        (POD, {"containers": [CONTAINER | {"resources": {"requests": {"cpu": []}}}]}, "resources.requests.cpu"),
        (POD, POD_SPEC | {"terminationGracePeriodSeconds": "5"}, "spec.terminationGracePeriodSeconds"),
        (DEPLOYMENT, SELECTED | {"replicas": -1}, "spec.replicas"),
        (DEPLOYMENT, SELECTED | {"replicas": True}, "spec.replicas"),
        (DEPLOYMENT, {"template": {"spec": POD_SPEC}}, "spec.selector"),
        (DEPLOYMENT, SELECTED | {"selector": {"matchLabels": {"a": "c"}}}, "spec.template.metadata.labels"),
        (LWS, LWS_SPEC | {"replicas": -1}, "spec.replicas"),
        (
            LWS,
            {"leaderWorkerTemplate": LWS_SPEC["leaderWorkerTemplate"] | {"size": 0}},
            "spec.leaderWorkerTemplate.size",
        ),
        (LWS, {}, "spec.leaderWorkerTemplate"),
        (PODGROUP, {}, "spec.schedulingPolicy"),
        (PODGROUP, {"schedulingPolicy": {"gang": {"minCount": 0}}}, "spec.schedulingPolicy.gang.minCount"),
        (PODGROUP, {"schedulingPolicy": {"gang": {}}}, "spec.schedulingPolicy.gang.minCount"),
        (PODGROUP, {"schedulingPolicy": {"basic": {}, "gang": {"minCount": 1}}}, "spec.schedulingPolicy"),
    ],
)
def test_a_refusal_names_the_field(kind: Kind, spec: Object, field: str) -> None:
    with pytest.raises(Refusal) as refusal:
        validate(row(kind), workload(kind, spec), None)
    status = refusal.value.status()
    assert status["code"] == 422
    assert status["details"]["causes"][0]["field"].endswith(field)
    assert field in status["message"]
    assert "\n" not in status["message"]


@pytest.mark.parametrize("name", ["", "Upper", "-a", "a..b", "a_b", "x" * 254, 7])
def test_names_are_dns_1123(name: Any) -> None:
    obj = workload(POD, POD_SPEC) | {"metadata": {"name": name}}
    with pytest.raises(Refusal, match=r"metadata\.name"):
        validate(row(POD), obj, None)


@pytest.mark.parametrize(
    ("kind", "old", "new", "allowed"),
    [
        (POD, POD_SPEC, {"containers": [CONTAINER | {"image": "j"}]}, True),
        (POD, POD_SPEC, POD_SPEC | {"tolerations": [{"key": "a"}]}, True),
        (POD, POD_SPEC, POD_SPEC | {"nodeName": "n"}, False),
        (POD, POD_SPEC, POD_SPEC | {"terminationGracePeriodSeconds": 5}, False),
        (POD, POD_SPEC | {"schedulingGates": [{"name": "g"}]}, POD_SPEC | {"schedulingGates": []}, True),
        (POD, POD_SPEC, POD_SPEC | {"schedulingGroup": {"podGroupName": "g"}}, False),
        (PODGROUP, GANG, {"schedulingPolicy": {"gang": {"minCount": 3}}}, True),
        (PODGROUP, GANG, {"schedulingPolicy": {"basic": {}}}, False),
        (PODGROUP, GANG, GANG | {"workloadRef": {"workloadName": "w", "templateName": "t"}}, False),
        (DEPLOYMENT, SELECTED, SELECTED | {"replicas": 2}, True),
        (DEPLOYMENT, SELECTED, SELECTED | {"selector": {"matchLabels": {}}}, False),
        (LWS, LWS_SPEC, LWS_SPEC | {"replicas": 4}, True),
    ],
)
def test_immutable_fields(kind: Kind, old: Object, new: Object, allowed: bool) -> None:
    before, after = workload(kind, old), workload(kind, new)
    if allowed:
        validate(row(kind), after, before)
    else:
        with pytest.raises(Refusal, match="immutable"):
            validate(row(kind), after, before)


# -- tables


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (190, "3m10s"),
        (1620, "27m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (5 * 3600 + 120, "5h2m"),
        (20 * 3600, "20h"),
        (3 * 86400 + 4 * 3600, "3d4h"),
        (12 * 86400, "12d"),
        (800 * 86400, "2y"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


NOW = datetime(2026, 8, 1, 12, 0, 30, tzinfo=UTC)


def pod_row(pod_status: Object, **meta: Any) -> dict[str, Any]:
    pod = workload(POD, dict(POD_SPEC)) | {"status": pod_status}
    pod["metadata"] |= {"creationTimestamp": "2026-08-01T12:00:00Z"} | meta
    made = table(row(POD), [pod], NOW, {}, "Metadata")
    names = [column["name"] for column in made["columnDefinitions"]]
    return dict(zip(names, made["rows"][0]["cells"], strict=True))


def test_the_row_of_a_running_pod() -> None:
    ended = {"terminated": {"finishedAt": (NOW - timedelta(seconds=7)).isoformat()}}
    statuses = [{"name": "c", "ready": True, "restartCount": 2, "state": {"running": {}}, "lastState": ended}]
    cells = pod_row({"phase": "Running", "podIP": "127.0.0.9", "containerStatuses": statuses})
    assert cells == {
        "Name": "x",
        "Ready": "1/1",
        "Status": "Running",
        "Restarts": "2 (7s ago)",
        "Age": "30s",
        "IP": "127.0.0.9",
        "Node": "<none>",
        "Nominated Node": "<none>",
        "Readiness Gates": "<none>",
    }


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"waiting": {"reason": "ContainerCreating"}}, "ContainerCreating"),
        ({"terminated": {"reason": "Error", "exitCode": 3}}, "Error"),
        ({"terminated": {"exitCode": 3}}, "ExitCode:3"),
        ({"running": {}}, "Running"),
    ],
)
def test_the_status_of_a_pod_is_its_containers(state: Object, text: str) -> None:
    status = {"phase": "Running", "containerStatuses": [{"name": "c", "state": state}]}
    assert pod_row(status)["Status"] == text
    assert pod_row(status, deletionTimestamp="2026-08-01T12:00:00Z")["Status"] == "Terminating"


@pytest.mark.parametrize("served", SERVED, ids=lambda served: served.kind.kind)
def test_every_kind_has_a_table_for_an_object_with_nothing_in_it(served: Served) -> None:
    kind = served.kind
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, "spec": {}, "status": {}}
    obj |= {"involvedObject": {"kind": "Pod", "name": "p"}, "spec": {"containers": []}}
    made = table(served, [obj], NOW, {}, "None")
    assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"]) > 2
    json.dumps(made)
