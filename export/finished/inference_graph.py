"""The inference graph of a bundle with an adapter in it: ONNX Runtime answers it from tokens alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from export.graphs.graph_edit import drop_inputs, subgraphs
from export.new_folder import link_or_copy, whole_folder_or_none
from hetlora.adapter import LoraFactors, Tensor
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, RankOutOfRange, SpecMismatch
from hetlora.tensors import factor_keys

GRAPH_NAME: Final = "model.onnx"
WEIGHTS_NAME: Final = "base.bin"
TOKENIZER_NAME: Final = "tokenizer.json"
_MOST_GRAPH_BYTES: Final = 2**31 - 1  # as protobuf counts them


def write_inference_folder(
    bundle: Bundle, factors: Mapping[str, LoraFactors], out: Path, version: str
) -> None:
    """Write `model.onnx`, the frozen weights that it reads and the tokenizer; whole or not at all.

    Args:
        factors: of each module of the bundle's adapter, each of any rank; 0 leaves a module as it was.
        version: whose they are; the graph's metadata tell it, with task and labels.

    Metadata keys are `hetlora.adapter_version`, `hetlora.task`, `hetlora.base_model`, `hetlora.bundle` and
    `hetlora.labels`, the last as JSON.

    Raises:
        BundleInvalid: a graph that cannot be read, or that reads another file than the base weights.
        SpecMismatch: factors of other modules, of other widths, or too many for one graph.
        RankOutOfRange: the bundle is stamped for a rank below one of theirs.
        ModelNotExportable: `out` is taken, or cannot be written.
    """
    manifest = bundle.manifest
    model = _load(bundle)
    _put_in(model.graph, _padded(bundle, factors))
    for tensor in _tensors(model.graph):
        _point_at_weights(tensor, manifest.graphs.base_weights)
    facts = {
        "adapter_version": version,
        "task": manifest.task,
        "base_model": manifest.base_model.id,
        "bundle": bundle.digest,
        "labels": json.dumps(manifest.labels, ensure_ascii=False),
    }
    for name, value in facts.items():
        model.metadata_props.add(key=f"hetlora.{name}", value=value)
    if model.ByteSize() > _MOST_GRAPH_BYTES:
        raise SpecMismatch(
            "the adapter is too large for one graph",
            got=f"{model.ByteSize()} bytes",
            expected=f"up to {_MOST_GRAPH_BYTES}; merged weights have no such limit",
        )
    with whole_folder_or_none(out) as folder:
        (folder / GRAPH_NAME).write_bytes(model.SerializeToString(deterministic=True))
        link_or_copy(bundle.path(manifest.graphs.base_weights), folder / WEIGHTS_NAME)
        if manifest.graphs.tokenizer is not None:
            link_or_copy(bundle.path(manifest.graphs.tokenizer), folder / TOKENIZER_NAME)


def _load(bundle: Bundle) -> ModelProto:
    name = bundle.manifest.graphs.inference
    try:
        return onnx.load(bundle.path(name), load_external_data=False)
    except Exception as error:  # protobuf's errors, and the system's
        raise BundleInvalid(f"{name} cannot be read", got=error, expected="an ONNX graph") from error


def _padded(bundle: Bundle, factors: Mapping[str, LoraFactors]) -> dict[str, Tensor]:
    """Factors by PEFT key, filled up with zeros, which change nothing, to the ranks that graphs take."""
    spec, fixed = bundle.manifest.adapter, bundle.manifest.fixed_rank
    if factors.keys() != spec.by_name.keys():
        raise SpecMismatch(
            "the adapter is not of this bundle",
            got=sorted(factors.keys() ^ spec.by_name.keys())[:3],
            expected=f"its {len(spec.modules)} modules",
        )
    tensors: dict[str, Tensor] = {}
    for module in spec.modules:
        own = factors[module.name]
        wanted = (own.rank, module.in_features), (module.out_features, own.rank)
        if (own.lora_A.shape, own.lora_B.shape) != wanted:
            raise SpecMismatch(
                f"factors of {module.name}", got=(own.lora_A.shape, own.lora_B.shape), expected=wanted
            )
        rank = max(own.rank, 1) if fixed is None else fixed
        if own.rank > rank:
            raise RankOutOfRange(
                "the bundle is stamped for one rank, frozen ones counted in", got=own.rank, expected=fixed
            )
        missing = (0, rank - own.rank)
        padded = np.pad(own.lora_A, (missing, (0, 0))), np.pad(own.lora_B, ((0, 0), missing))
        tensors.update(zip(factor_keys(module.name), padded, strict=True))
    return tensors


def _put_in(graph: GraphProto, tensors: Mapping[str, Tensor]) -> None:
    lacking = tensors.keys() - {value.name for value in graph.input}
    if lacking:
        raise BundleInvalid("the inference graph takes no adapter", got=f"no input {sorted(lacking)[0]}")
    drop_inputs(graph, tensors)
    for key, tensor in tensors.items():
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(tensor, np.float32), key))


def _point_at_weights(tensor: TensorProto, base_weights: str) -> None:
    """Let what lies outside of the graph be read from the file beside it."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    for entry in tensor.external_data:
        if entry.key == "location":
            if Path(entry.value).name != Path(base_weights).name:
                raise BundleInvalid(
                    "the inference graph reads a file other than the base weights",
                    got=entry.value,
                    expected=base_weights,
                )
            entry.value = WEIGHTS_NAME


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _tensors_of(node)


def _tensors_of(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for below in subgraphs(node):
        yield from _tensors(below)
