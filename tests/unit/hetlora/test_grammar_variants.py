"""What a variant of a bundle may change, and what it may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hetlora.errors import VariantMismatch
from hetlora.manifest import Manifest, parse_manifest
from hetlora.variants import check_variant

Fields = dict[str, Any]
GENERATION: Fields = {"vocabulary": 9, "eos_token_ids": [2], "decoder_start_token_id": None}


def manifest_of(fields: Fields, changes: Fields) -> Manifest:
    """`changes` are by dotted paths."""
    changed = json.loads(json.dumps(fields))
    for path, value in changes.items():
        *parents, last = path.split("/")
        target = changed
        for step in parents:
            target = target[int(step) if step.isdigit() else step]
        target[last] = value
    return parse_manifest(json.dumps(changed).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"base_precision": "int4"},
        {"recompute": "layer"},
        {"fixed_rank": 2},
        {"base_model/id": "another name of it"},
        {"base_model/parameters": 1},
        {"cost_model/base_weight_bytes": 1},
        {"versions/opset": 21},
        {"pytorch": None},
    ],
)
def test_variant_may_cost_what_it_will(manifest_fields: Fields, changes: Fields) -> None:
    check_variant(manifest_of(manifest_fields, {}), manifest_of(manifest_fields, changes))


def test_variant_may_train_fewer_modules_of_the_same_adapter(manifest_fields: Fields) -> None:
    modules = manifest_fields["adapter"]["modules"]
    manifest_fields["adapter"]["modules"] = [{**modules[0], "name": name} for name in ("k", "q")]
    variant = manifest_of(manifest_fields, {"untrained": ["k"]})
    assert (variant.trained, manifest_of(manifest_fields, {}).trained) == (("q",), ("k", "q"))
    check_variant(manifest_of(manifest_fields, {}), variant)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": ["warm", "cold"]}, "labels"),
        ({"labels": [], "task": "text-generation", "generation": GENERATION}, "task, labels, generation"),
        ({"adapter/scaling": 0.25}, "adapter"),
        ({"adapter/max_rank": 1}, "adapter"),
        ({"adapter/modules/0/name": "a"}, "adapter"),
        ({"base_model/sha256": "f" * 64}, "base_model"),
        ({"optimizer/weight_decay": 0.125}, "optimizer"),
    ],
)
def test_variant_of_another_adapter_is_refused_by_what_differs(
    manifest_fields: Fields, changes: Fields, named: str
) -> None:
    with pytest.raises(VariantMismatch) as refused:
        check_variant(manifest_of(manifest_fields, {}), manifest_of(manifest_fields, changes))
    assert refused.value.got == f"other {named}"


def test_tokenizer_of_a_variant_is_told_by_its_bytes(manifest_fields: Fields) -> None:
    name = manifest_fields["graphs"]["tokenizer"]
    files = manifest_fields["files"]
    elsewhere = {"graphs/tokenizer": "moved.json", "files": {**files, "moved.json": files[name]}}
    check_variant(manifest_of(manifest_fields, {}), manifest_of(manifest_fields, elsewhere))
    other = {"files": {**files, name: {**files[name], "sha256": "f" * 64}}}
    with pytest.raises(VariantMismatch) as refused:
        check_variant(manifest_of(manifest_fields, {}), manifest_of(manifest_fields, other))
    assert refused.value.got == "other tokenizer"
