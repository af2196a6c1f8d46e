"""Fixes the sizes of a bundle's graphs, for runtimes that take no other: NNAPI, Core ML, QNN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ValueInfoProto

from export.new_folder import link_or_copy, whole_folder_or_none
from export.recipe import MIN_TOKENS
from export.training.lora_graph import rank_symbol
from hetlora.bundle import Bundle, open_bundle
from hetlora.digest import sha256_of_file
from hetlora.errors import BundleInvalid, ModelNotExportable, RankOutOfRange
from hetlora.manifest import MANIFEST_NAME, MAX_ROWS, Manifest
from hetlora.messages.common import ObjectRef


def stamp(
    bundle: Bundle, out: Path, *, rank: int, batch: int | None = None, tokens: int | None = None
) -> Bundle:
    """Write a copy of a bundle at `out` whose ONNX graphs take one rank alone.

    Args:
        rank: of every module. An adapter of smaller ranks answers once it is padded with zeros.
        batch: rows of every batch, if not any number.
        tokens: length of every text, and of the answers of a sequence-to-sequence model, if not any: texts
            are cut or padded to it. It becomes the `max_tokens` of the new bundle.

    What does not change, the frozen weights above all, is the same file in both folders (a hard link, or a
    copy where there are none). Adapters go from one bundle to the other: their specification is the same.

    Raises:
        RankOutOfRange: `rank` is not within 1 and the bundle's largest.
        BundleInvalid: the bundle's rank is fixed already, or a graph cannot be read.
        ModelNotExportable: `batch` or `tokens` is not to be had, or `out` cannot be written.
    """
    manifest = bundle.manifest
    _check(manifest, rank, batch, tokens)
    sizes = {rank_symbol(module): rank for module in manifest.adapter.modules}
    sizes |= {name: size for name, size in (("batch", batch), ("tokens", tokens)) if size is not None}
    if tokens is not None:
        sizes["target_tokens"] = tokens
    graphs = {manifest.graphs.training, manifest.graphs.eval, manifest.graphs.inference}
    graphs |= {section.gradients for section in (manifest.android, manifest.web) if section is not None}
    with whole_folder_or_none(out) as folder:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name in graphs:
                _stamp_graph(bundle.path(name), folder / name, sizes)
            else:
                link_or_copy(bundle.path(name), folder / name)
        stamped = _stamped(manifest, folder, graphs, rank, sizes)
        (folder / MANIFEST_NAME).write_bytes(stamped.to_json())
    return open_bundle(out, verify=False)


def _check(manifest: Manifest, rank: int, batch: int | None, tokens: int | None) -> None:
    if manifest.fixed_rank is not None:
        raise BundleInvalid(
            "the bundle is stamped already", got=f"rank {manifest.fixed_rank}", expected="one of any rank"
        )
    if not 1 <= rank <= manifest.adapter.max_rank:
        raise RankOutOfRange("rank to stamp", got=rank, expected=f"1 to {manifest.adapter.max_rank}")
    if batch is not None and not 1 <= batch <= MAX_ROWS:
        raise ModelNotExportable("rows to stamp", got=batch, expected=f"1 to {MAX_ROWS}")
    if tokens is not None and not (MIN_TOKENS <= tokens <= manifest.max_tokens and manifest.graphs.tokenizer):
        longest = (
            f"{MIN_TOKENS} to {manifest.max_tokens}" if manifest.graphs.tokenizer else "none for pictures"
        )
        raise ModelNotExportable("tokens to stamp", got=tokens, expected=longest)


def _stamp_graph(source: Path, target: Path, sizes: Mapping[str, int]) -> None:
    try:
        model = onnx.load(source, load_external_data=False)
    except Exception as error:  # protobuf's errors, and the system's
        raise BundleInvalid(f"{source.name} cannot be read", got=error, expected="an ONNX graph") from error
    for value in (*model.graph.input, *model.graph.output):
        _fix(value, sizes)
    target.write_bytes(model.SerializeToString(deterministic=True))


def _fix(value: ValueInfoProto, sizes: Mapping[str, int]) -> None:
    for axis in value.type.tensor_type.shape.dim:
        if axis.dim_param in sizes:
            axis.dim_value = sizes[axis.dim_param]


def _stamped(
    manifest: Manifest, folder: Path, graphs: set[str], rank: int, sizes: Mapping[str, int]
) -> Manifest:
    new = {
        name: ObjectRef(sha256=sha256_of_file(folder / name), size_bytes=(folder / name).stat().st_size)
        for name in graphs
    }
    inputs = tuple(
        tensor.model_copy(update={"shape": tuple(sizes.get(str(axis), axis) for axis in tensor.shape)})
        for tensor in manifest.inputs
    )
    return manifest.model_copy(
        update={
            "inputs": inputs,
            "fixed_rank": rank,
            "max_tokens": sizes.get("tokens", manifest.max_tokens),
            "files": {**manifest.files, **new},
        }
    )
