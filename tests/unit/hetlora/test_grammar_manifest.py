from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetlora.errors import BundleInvalid
from hetlora.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest

Fields = dict[str, Any]


def put(fields: Fields, path: str, value: object) -> bytes:
    """The manifest's JSON with one value put at a dotted path."""
    *parents, last = path.split("/")
    target: Any = fields
    for step in parents:
        target = target[int(step) if step.isdigit() else step]
    target[last] = value
    return json.dumps(fields).encode()


def test_manifest_survives_a_round_trip_with_the_same_bytes(manifest_fields: Fields) -> None:
    manifest = parse_manifest(json.dumps(manifest_fields).encode())
    assert parse_manifest(manifest.to_json()) == manifest
    assert parse_manifest(manifest.to_json()).to_json() == manifest.to_json()
    assert json.loads(manifest.to_json()) == manifest_fields


GENERATION = {"vocabulary": 9, "eos_token_ids": [2], "decoder_start_token_id": None}


IMAGE = {"mean": [0.5], "std": [0.5]}
# What a task has beside `labels` of text; pictures need no tokenizer.
OF_TASK: Fields = {
    "text-classification": {},
    "image-classification": {"image": IMAGE, "tokenizer": None},
    "text-generation": {"labels": [], "generation": GENERATION},
    "text2text-generation": {"labels": [], "generation": GENERATION},
}


def of_task(manifest_fields: Fields, task: str, **other: object) -> bytes:
    """The JSON of a task's manifest, with `other` in place of what the task has."""
    fields = {**OF_TASK[task], **other}
    if "tokenizer" in fields:
        manifest_fields["graphs"]["tokenizer"] = fields.pop("tokenizer")
    return json.dumps({**manifest_fields, "task": task, **fields}).encode()


@pytest.mark.parametrize("task", OF_TASK)
def test_what_fits_a_task_is_read(manifest_fields: Fields, task: str) -> None:
    manifest = parse_manifest(of_task(manifest_fields, task))
    assert manifest.task == task
    assert manifest.generates == task.endswith("generation")


def test_each_runtime_opens_files_of_its_own(manifest_fields: Fields) -> None:
    programs = {"training": "a.pte", "inference": "b.pte", "base_weights": "c.ptd", "portable": ["a.pte"]}
    entry = manifest_fields["files"]["graphs/eval.bin"]
    own = ("a.pte", "b.pte", "c.ptd", "config.json", "weights.json", "start.st", "phone.onnx", "page.onnx")
    more = dict.fromkeys(own, entry)
    fields = {
        **manifest_fields,
        "executorch": programs,
        "pytorch": {"config": "config.json", "weights": "weights.json"},
        "android": {"gradients": "phone.onnx"},
        "web": {"gradients": "page.onnx"},
        "initial_adapter": "start.st",
        "files": manifest_fields["files"] | more,
    }
    manifest = parse_manifest(json.dumps(fields).encode())
    weights, tokenizer = "graphs/base_weights.bin", "graphs/tokenizer.bin"
    graphs = {f"graphs/{graph}.bin" for graph in ("training", "eval", "inference")}
    assert manifest.files_of("onnx") == graphs | {weights, tokenizer}
    assert manifest.files_of("executorch") == {"a.pte", "b.pte", "c.ptd", tokenizer}
    assert manifest.files_of("pytorch") == {"config.json", "weights.json", weights, tokenizer}
    scoring = {"graphs/eval.bin", weights, tokenizer}
    assert manifest.files_of("android") == {"phone.onnx", *scoring}
    assert manifest.files_of("web") == {"page.onnx", *scoring}
    assert manifest.runtimes == ("onnx", "executorch", "pytorch", "android", "web")


@pytest.mark.parametrize("client", ["android", "web"])
def test_graph_of_gradients_is_one_of_the_bundles_files(manifest_fields: Fields, client: str) -> None:
    fields = {**manifest_fields, client: {"gradients": "other.onnx"}}
    with pytest.raises(BundleInvalid, match=r"does not list.*other\.onnx"):
        parse_manifest(json.dumps(fields).encode())


def test_no_tokenizer_is_opened_for_pictures(manifest_fields: Fields) -> None:
    manifest = parse_manifest(of_task(manifest_fields, "image-classification"))
    assert "graphs/tokenizer.bin" not in manifest.files_of("onnx")


@pytest.mark.parametrize("runtime", ["executorch", "pytorch", "android", "web", "tflite"])
def test_bundle_says_for_which_runtime_it_has_no_files(manifest_fields: Fields, runtime: str) -> None:
    with pytest.raises(BundleInvalid, match=f"the bundle has no files for {runtime}"):
        parse_manifest(json.dumps(manifest_fields).encode()).files_of(runtime)


@pytest.mark.parametrize(("untrained", "words"), [(["k"], "untrained names k"), (["q"], "all modules")])
def test_untrained_modules_are_some_of_the_adapters(
    manifest_fields: Fields, untrained: list[str], words: str
) -> None:
    with pytest.raises(BundleInvalid, match=words):
        parse_manifest(json.dumps({**manifest_fields, "untrained": untrained}).encode())


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [
        ("text-classification", "labels", ["one"]),
        ("text-classification", "generation", GENERATION),
        ("text-classification", "image", IMAGE),
        ("text-classification", "tokenizer", None),
        ("image-classification", "labels", []),
        ("image-classification", "image", None),
        ("image-classification", "tokenizer", "graphs/tokenizer.bin"),
        ("text-generation", "labels", ["text", "number"]),
        ("text-generation", "image", IMAGE),
        ("text2text-generation", "generation", None),
        ("text2text-generation", "tokenizer", None),
    ],
)
def test_what_does_not_fit_the_task_is_refused_by_name(
    manifest_fields: Fields, task: str, field: str, value: object
) -> None:
    with pytest.raises(BundleInvalid, match=rf"do not fit the task {task}: {field}\b"):
        parse_manifest(of_task(manifest_fields, task, **{field: value}))


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "graphs/../../evil",
        "graphs/..",
        "..",
        "/etc/passwd",
        "//server/share",
        "C:/evil",
        "graphs\\..\\evil",
        ".",
        "",
        "./graphs/eval.bin",
        "graphs//eval.bin",
        "graphs/",
        "graphs/eval.bin\0.txt",
        "graphs/eval\n.bin",
        "graphs/" + "é" * 128,
        "/".join(["graph"] * 171),
    ],
)
@pytest.mark.parametrize("place", ["graphs", "files"])
def test_paths_that_leave_the_bundle_or_have_two_spellings_are_refused(
    manifest_fields: Fields, place: str, path: str
) -> None:
    entry = manifest_fields["files"]["graphs/eval.bin"]
    data = put(manifest_fields, "graphs/eval", path) if place == "graphs" else b""
    if place == "files":
        manifest_fields["files"][path] = entry
        data = json.dumps(manifest_fields).encode()
    with pytest.raises(BundleInvalid, match=place):
        parse_manifest(data)


@pytest.mark.parametrize(
    "place", ["extra", "base_model/extra", "adapter/extra", "adapter/modules/0/extra", "cost_model/extra"]
)
def test_unknown_fields_are_refused_by_name(manifest_fields: Fields, place: str) -> None:
    with pytest.raises(BundleInvalid, match="extra"):
        parse_manifest(put(manifest_fields, place, 1))


@pytest.mark.parametrize("place", ["adapter/scaling", "optimizer/epsilon", "optimizer/weight_decay"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(manifest_fields: Fields, place: str, value: float) -> None:
    with pytest.raises(BundleInvalid, match=r"finite|greater"):
        parse_manifest(put(manifest_fields, place, value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema_version", 0),
        ("schema_version", 2),
        ("schema_version", "1"),
        ("task", "translation"),
        ("labels", ["only one"]),
        ("labels", ["twice", "twice"]),
        ("max_tokens", 0),
        ("max_tokens", 2**20 + 1),
        ("max_tokens", 2**63),
        ("base_model/parameters", 10**30),
        ("cost_model/base_weight_bytes", 10**30),
        ("cost_model/adapter_bytes_per_rank", 10**30),
        ("adapter/scaling", "2.0"),
        ("adapter/max_rank", True),
        ("base_model/sha256", "0" * 63),
        ("base_model/sha256", "A" * 64),
        ("base_model/sha256", "0" * 64 + "\n"),
        ("cost_model/graph_nodes", -1),
        ("optimizer/beta1", 1.0),
        ("optimizer/beta2", -0.5),
        ("optimizer/epsilon", 0.0),
        ("optimizer/weight_decay", -0.1),
        ("cost_model/flops/per_text", 1.5),
        ("cost_model/live_bytes", []),
        ("files", {}),
    ],
)
def test_values_outside_the_schema_are_refused(manifest_fields: Fields, place: str, value: object) -> None:
    with pytest.raises(BundleInvalid, match=place.split("/")[-1]):
        parse_manifest(put(manifest_fields, place, value))


def test_step_that_would_take_no_time_is_refused(manifest_fields: Fields) -> None:
    for place in ("flops", "written_bytes"):
        put(manifest_fields, f"cost_model/{place}", {})
    with pytest.raises(BundleInvalid, match="takes no time"):
        parse_manifest(put(manifest_fields, "cost_model/graph_nodes", 1000))
    put(manifest_fields, "cost_model/most_chunk_rows", 0)
    with pytest.raises(BundleInvalid, match="takes no time"):  # rows of chunks that there are none of
        parse_manifest(put(manifest_fields, "cost_model/flops", {"per_chunk_row": 5}))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("adapter/modules", []),
        ("adapter/max_rank", 3),
        ("adapter/scaling", 0.0),
        ("adapter/max_rank", 10**30),
        ("adapter/modules/0/in_features", 0),
        ("adapter/modules/0/in_features", 2**24 + 1),
        ("adapter/modules/0/out_features", 10**30),
        ("adapter/modules/0/name", "q\nv"),
    ],
)
def test_impossible_adapter_specification_is_refused(
    manifest_fields: Fields, place: str, value: object
) -> None:
    with pytest.raises(BundleInvalid, match="impossible adapter specification"):
        parse_manifest(put(manifest_fields, place, value))


def test_graph_file_that_is_not_listed_is_refused(manifest_fields: Fields) -> None:
    del manifest_fields["files"]["graphs/eval.bin"]
    with pytest.raises(BundleInvalid, match=r"does not list; got \['graphs/eval.bin'\]"):
        parse_manifest(json.dumps(manifest_fields).encode())


@pytest.mark.parametrize(
    "path", ["manifest.json", "manifest.json/a", "graphs", "graphs/eval.bin/a", "graphs/eval.bin/a/b"]
)
def test_files_that_cannot_lie_beside_each_other_are_refused(manifest_fields: Fields, path: str) -> None:
    manifest_fields["files"][path] = manifest_fields["files"]["graphs/eval.bin"]
    with pytest.raises(BundleInvalid, match="cannot lie beside each other"):
        parse_manifest(json.dumps(manifest_fields).encode())


def test_longest_names_are_accepted(manifest_fields: Fields) -> None:
    for path in ("graphs/" + "e" * 255, "/".join(["12345"] * 170) + "/123"):  # 1023 bytes
        manifest_fields["files"][path] = manifest_fields["files"]["graphs/eval.bin"]
    assert parse_manifest(json.dumps(manifest_fields).encode())


def test_too_large_manifest_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BundleInvalid, match="too large"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"null", b"[]", b"{", b"[" * 10_000, b'"\\ud800"'])
def test_bytes_that_are_no_json_object_are_refused(data: bytes) -> None:
    with pytest.raises(BundleInvalid, match="schema"):
        parse_manifest(data)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spliced_manifests_are_read_or_refused(manifest_fields: Fields, data: st.DataObject) -> None:
    good = json.dumps(manifest_fields).encode()
    start = data.draw(st.integers(0, len(good)))
    inserted = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"1e400", b"9" * 5000, b'"\\ud800"', b"NaN"])
    )
    spliced = good[:start] + inserted + good[start + data.draw(st.integers(0, 12)) :]
    try:
        manifest: Manifest | None = parse_manifest(spliced)
    except BundleInvalid:
        manifest = None
    if manifest is not None:
        assert parse_manifest(manifest.to_json()) == manifest
