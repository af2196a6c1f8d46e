"""Lowers a traced program to ExecuTorch: on XNNPACK, or on the portable kernels where that refuses."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS  # type: ignore[import-untyped]
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # type: ignore[import-untyped]
from executorch.exir import EdgeCompileConfig, EdgeProgramManager, ExecutorchBackendConfig, to_edge  # type: ignore[import-untyped]
from executorch.exir._serialize._cord import Cord  # type: ignore[import-untyped]
from executorch.exir._serialize.data_serializer import DataEntry, DataPayload  # type: ignore[import-untyped]
from executorch.exir.backend.partitioner import Partitioner  # type: ignore[import-untyped]
from executorch.exir.dialects.edge._ops import EdgeOpOverload  # type: ignore[import-untyped]
from executorch.extension.flat_tensor.serialize.serialize import FlatTensorSerializer  # type: ignore[import-untyped]
from executorch.extension.pybindings import _portable_lib  # type: ignore[import-untyped]
from torch.export import ExportedProgram
from torch.fx import Node

from export.executorch.order import order_kept
from export.executorch.passes import needless_passes_left_out
from export.quiet import first_line
from hetlora.digest import sha256_of
from hetlora.errors import ModelNotExportable

_DATA_TAG: Final = "base"
_ALIGNMENT_BYTES: Final = 64  # a cache line
# XNNPACK reshapes along one symbolic axis at most, and takes a part that only copies for an error.
_NOT_DELEGATED: Final = {
    "CloneConfig",
    "CloneDimOrderConfig",
    "SliceCopyConfig",
    "ToDimOrderCopyConfig",
    "UnsqueezeCopyConfig",
    "ViewCopyConfig",
}


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program without its weights, the weights by name, and why XNNPACK refused it, if it did."""

    program: bytes
    weights: DataPayload
    refusal: str | None


def xnnpack(*, transposes: bool = True) -> XnnpackPartitioner:
    """Hands XNNPACK the arithmetic and leaves what only moves numbers to the portable kernels.

    Transpositions go with the products that they stand between, unless `transposes` is false.
    """
    left = _NOT_DELEGATED if transposes else {*_NOT_DELEGATED, "PermuteConfig"}
    configs = [config for config in ALL_PARTITIONER_CONFIGS if config.__name__ not in left]
    return XnnpackPartitioner(configs=configs)


def lower(exported: ExportedProgram, name: str, delegate: Partitioner) -> Lowered:
    """Lower a program with `delegate`, or without any where that one refuses; `name` is for messages.

    Raises:
        ModelNotExportable: ExecuTorch cannot lower the program, or has no kernel for one of its operators.
    """
    try:
        return _lower(exported, [delegate], None)
    except Exception as error:  # the delegate's checks raise RuntimeError, AssertionError and more
        refusal = first_line(error)
    try:
        return _lower(exported, [], refusal)
    except ModelNotExportable:
        raise
    except Exception as error:
        raise ModelNotExportable(
            f"ExecuTorch cannot lower the {name} program", got=first_line(error)
        ) from error


def _lower(exported: ExportedProgram, delegates: list[Partitioner], refusal: str | None) -> Lowered:
    for node in exported.graph.nodes:
        if node.op == "placeholder":  # else XNNPACK copies the weights into the program
            node.meta.setdefault("custom", {})["delegate_constant_tag"] = _DATA_TAG
    whole = [torch.ops.aten.linear.default] if delegates else []  # XNNPACK takes it without reshaping
    config = EdgeCompileConfig(_check_ir_validity=False, preserve_ops=whole)
    edge = to_edge(exported, compile_config=config)
    with order_kept(), needless_passes_left_out():
        for delegate in delegates:
            edge = edge.to_backend(delegate)
    _check_kernels(edge)
    lowered = edge.to_executorch(ExecutorchBackendConfig(external_constants=lambda node: _DATA_TAG))
    with TemporaryDirectory(prefix="hetlora-") as folder:
        lowered.write_tensor_data_to_file(folder)
        data = (Path(folder) / f"{_DATA_TAG}.ptd").read_bytes()
    return Lowered(lowered.buffer, FlatTensorSerializer().deserialize(Cord(data)), refusal)


def merge_weights(programs: Iterable[Lowered]) -> bytes:
    """One data file for all programs: each weight once, in the order of the names."""
    places: dict[str, int] = {}
    buffers: list[bytes] = []
    entries: dict[str, DataEntry] = {}
    for program in programs:
        for key, entry in program.weights.named_data.items():
            data = bytes(program.weights.buffers[entry.buffer_index])
            place = places.setdefault(sha256_of(data), len(buffers))
            if place == len(buffers):
                buffers.append(data)
            entries[key] = DataEntry(place, _ALIGNMENT_BYTES, entry.tensor_layout)
    ordered = dict(sorted(entries.items()))
    return bytes(FlatTensorSerializer().serialize(DataPayload(buffers, ordered)))


def _check_kernels(edge: EdgeProgramManager) -> None:
    known = set(_portable_lib._get_operator_names())
    program = edge.exported_program()
    for node in program.graph.nodes:
        if isinstance(node.target, EdgeOpOverload) and _out_name(node.target) not in known:
            raise ModelNotExportable(
                "ExecuTorch has no kernel for an operator of the model",
                got=f"{node.target._op.name()} in module {_module_of(node, program)}",
            )


def _out_name(operator: EdgeOpOverload) -> str | None:
    try:
        return str(operator.to_out_variant().name())
    except RuntimeError:  # an operator without such a variant
        return None


def _module_of(node: Node, program: ExportedProgram) -> str:
    """The module an operator came from; in a backward pass, which records none, the nearest weight's."""
    stack: Sequence[tuple[str, object]] = list((node.meta.get("nn_module_stack") or {}).values())
    if stack and stack[-1][0]:
        return str(stack[-1][0]).removeprefix("model.")
    weights = program.graph_signature.inputs_to_parameters
    seen, waiting = {node}, deque([node])
    while waiting:
        near = waiting.popleft()
        if near.name in weights:
            return f"near {weights[near.name].rpartition('.')[0].removeprefix('model.')}"
        around = [*near.all_input_nodes, *near.users]
        waiting.extend(other for other in around if other not in seen)
        seen.update(around)
    return "unknown"
