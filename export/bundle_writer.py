"""Turns a pretrained encoder, class labels and LoRA targets into one bundle folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import onnx
from onnx import ModelProto

import hetlora
from export.base_weights import Place, Weights, bind_weights, detach_weights, write_weights
from export.classifier_graph import add_cross_entropy, add_prototype_head
from export.cost_model import cost_model
from export.encoder_graph import OPSET, export_encoder, graph_inputs
from export.graph_builder import GraphBuilder
from export.labels import parse_labels
from export.lora_graph import factor_shapes, splice_lora
from export.model_folder import PretrainedModel, load_pretrained
from export.quiet import quiet_libraries
from export.reference import embed_texts
from export.targets import find_targets
from export.training_graph import ADAMW, RANK, build_training
from hetlora.adapter import AdapterSpec
from hetlora.bundle import Bundle, open_bundle
from hetlora.digest import sha256_of_file
from hetlora.errors import ModelNotExportable
from hetlora.graph_names import LOGITS, LOSS
from hetlora.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    GraphFiles,
    Manifest,
    ToolVersions,
)
from hetlora.messages.common import ObjectRef

FILES: Final = GraphFiles(
    training="training.onnx",
    eval="eval.onnx",
    optimizer="optimizer.onnx",
    inference="inference.onnx",
    base_weights="base.bin",
    tokenizer="tokenizer.json",
)
# ONNX Runtime 1.19 refuses what lies above 10; 9 is as much as opset 18 asks for.
IR_VERSION: Final = 9


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The graphs by file name and the forward graph they grew from, all without weights; and the weights."""

    graphs: dict[str, ModelProto]
    forward: ModelProto
    weights: Weights


def _ignore(message: str) -> None:
    """Report to nobody."""


def export_bundle(
    model: str,
    out: Path,
    *,
    labels: Sequence[str] | Mapping[str, str],
    targets: Sequence[str],
    max_rank: int = 32,
    scaling: float = 2.0,
    max_tokens: int = 64,
    task: str = "text-classification",
    revision: str | None = None,
    progress: Callable[[str], None] = _ignore,
) -> Bundle:
    """Compile a local model folder or hub id into a bundle at `out`.

    A label is `name` or `name=describing text`, or a mapping gives the texts by name: the name goes into the
    manifest, the text is embedded as the class prototype. `targets` are endings of PEFT module names. The
    same inputs give the same bytes, and a failed export leaves nothing behind.

    Raises:
        ModelNotExportable: model, tokenizer, labels, targets, task or `out` cannot be used.
        RankOutOfRange: `max_rank` does not fit every target module.
        SpecMismatch: `scaling` is not a finite positive number.
    """
    if task != "text-classification":
        raise ModelNotExportable("unknown task", got=repr(task), expected="text-classification")
    texts = parse_labels(labels)
    with _whole_folder_or_none(out) as folder, quiet_libraries():
        progress("loading the model")
        pretrained = load_pretrained(model, revision=revision, max_tokens=max_tokens)
        progress("exporting the encoder")
        encoder = export_encoder(pretrained.encoder)
        spec = AdapterSpec(find_targets(pretrained.encoder, encoder, targets), scaling, max_rank)
        progress(f"building training graphs for {len(spec.modules)} LoRA modules")
        compiled = _compile(pretrained, encoder, spec, list(texts.values()))
        cost = cost_model(
            compiled.forward, compiled.graphs[FILES.training], compiled.weights, spec, max_tokens
        )
        progress("writing the bundle")
        _write_files(compiled, pretrained, folder)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            task="text-classification",
            labels=tuple(texts),
            max_tokens=max_tokens,
            base_model=pretrained.info,
            adapter=spec,
            inputs=graph_inputs(compiled.forward),
            optimizer=ADAMW,
            graphs=FILES,
            cost_model=cost,
            versions=_tool_versions(),
            files=_file_entries(folder),
        )
        (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return open_bundle(out, verify=False)


def _compile(
    pretrained: PretrainedModel, encoder: ModelProto, spec: AdapterSpec, texts: list[str]
) -> _Compiled:
    forward = encoder
    splice_lora(forward, spec)
    add_prototype_head(forward, embed_texts(pretrained.encoder, pretrained.tokenizer, texts))
    weights = detach_weights(forward)
    training, optimizer = build_training(forward, spec)
    inference = _with_adapter_inputs(forward, spec)
    evaluation = ModelProto()
    evaluation.CopyFrom(inference)
    del evaluation.graph.output[:]
    GraphBuilder(evaluation.graph).output(add_cross_entropy(evaluation.graph, LOSS), [])
    GraphBuilder(evaluation.graph).output(LOGITS, ["batch", len(texts)])
    graphs = {
        FILES.training: training,
        FILES.eval: evaluation,
        FILES.optimizer: optimizer,
        FILES.inference: inference,
    }
    return _Compiled(graphs, forward, weights)


def _with_adapter_inputs(forward: ModelProto, spec: AdapterSpec) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(forward)
    for key, shape in factor_shapes(spec.modules, RANK).items():
        GraphBuilder(model.graph).input(key, shape)
    return model


def _write_files(compiled: _Compiled, pretrained: PretrainedModel, folder: Path) -> None:
    places = write_weights(compiled.weights, folder / FILES.base_weights)
    for name, graph in compiled.graphs.items():
        _write_graph(graph, places, folder / name)
    pretrained.tokenizer.save(str(folder / FILES.tokenizer))


def _write_graph(model: ModelProto, places: dict[str, Place], path: Path) -> None:
    bind_weights(model, places, FILES.base_weights)
    # Left over from the exporter: shapes of before the edits, and stack traces of megabytes.
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    model.ir_version = IR_VERSION
    onnx.save(model, path)


def _file_entries(folder: Path) -> dict[str, ObjectRef]:
    return {
        path.name: ObjectRef(sha256=sha256_of_file(path), size_bytes=path.stat().st_size)
        for path in sorted(folder.iterdir())
    }


def _tool_versions() -> ToolVersions:
    return ToolVersions(
        hetlora=hetlora.__version__,
        onnx=version("onnx"),
        onnxruntime=version("onnxruntime-training-cpu"),
        opset=OPSET,
        ir_version=IR_VERSION,
    )


@contextmanager
def _whole_folder_or_none(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its name once the block is done, or goes away if it fails."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelNotExportable("the place for the bundle is taken", got=out, expected="no such folder yet")
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        partial.rename(out)  # over an empty folder too
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise ModelNotExportable(
                "the bundle cannot be written", got=error, expected="room, and leave to write there"
            ) from error
        raise
