"""Turns a pretrained model and LoRA targets into one bundle folder; weights pass through one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx
import torch

from export.bundle_manifest import FILES, INITIAL_ADAPTER, describe, formats_of
from export.compilation import Compiled, compile_model
from export.cost.cost_model import cost_model
from export.cost.run_order import graph_as_run
from export.cost.tensor_sizes import declared_sizes
from export.executorch.files import require_executorch, write_executorch
from export.new_folder import whole_folder_or_none
from export.peft.peft_adapter import to_bundle
from export.prototype_classifier import PrototypeClassifier, embed_texts
from export.quiet import quiet_libraries
from export.recipe import Recipe, make_recipe
from export.source.model_folder import ModelFolder, load_model, load_tokenizer, open_model
from export.source.weight_files import WeightFiles, digest_of, weight_paths
from export.training.causal_loss import most_chunk_rows
from export.training.classifier_graph import PROTOTYPES
from export.training.training_graph import build_optimizer
from export.weights.binding import bind_weights
from export.weights.precision import precision_of
from export.weights.weight_file import StoredWeight, write_weights
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle, open_bundle
from hetlora.manifest import MANIFEST_NAME, ExecutorchFiles, Precision
from hetlora.tensors import adapter_to_bytes

# What the ExecuTorch programs plan their memory for.
_EXECUTORCH_BATCH: Final = 8


def _ignore(message: str) -> None:
    """Report to nobody."""


def export_bundle(
    model: str,
    out: Path,
    *,
    targets: Sequence[str],
    task: str = "text-classification",
    labels: Sequence[str] | Mapping[str, str] = (),
    last_layers: int | None = None,
    max_rank: int = 32,
    scaling: float = 2.0,
    max_tokens: int = 64,
    base: Precision = "float32",
    recompute: str = "none",
    runtimes: Collection[str] = ("onnx",),
    initial_adapter: Adapter | None = None,
    revision: str | None = None,
    progress: Callable[[str], None] = _ignore,
) -> Bundle:
    """Compile a local model folder or hub id into a bundle at `out`.

    Args:
        targets: endings or patterns of PEFT module names, or "all-linear"; see `export.graphs.targets`.
        labels: of text-classification: `name` or `name=describing text`; or a mapping gives the texts by
            name. The name goes into the manifest, the text is embedded as the class prototype.
        last_layers: train in the last so many transformer blocks alone; the backward pass ends there.
        base: how the frozen weights are stored and kept in memory.
        recompute: activations that the backward pass makes anew: "none", "selective" or "layer".
        runtimes: "onnx" is always written, "executorch" adds its programs.
        initial_adapter: what runs on this bundle begin with, such as PEFT's of `export.peft.peft_adapter`.

    The same inputs give the same bytes, and a failed export leaves nothing behind.

    Raises:
        ModelNotExportable: model, tokenizer, labels, targets, a choice or `out` cannot be used.
        RankOutOfRange: `max_rank` does not fit every target module.
        SpecMismatch: `scaling` is not a finite positive number, or `initial_adapter` fits another model.
        DependencyMissing: ExecuTorch is asked for and not installed.
    """
    recipe = make_recipe(
        task=task,
        labels=labels,
        targets=targets,
        runtimes=runtimes,
        last_layers=last_layers,
        max_rank=max_rank,
        scaling=scaling,
        max_tokens=max_tokens,
        base=base,
        recompute=recompute,
    )
    if "executorch" in recipe.runtimes:
        require_executorch()  # now, and not when the ONNX graphs are done
    with whole_folder_or_none(out) as folder, quiet_libraries():
        _write_bundle(open_model(model, revision), recipe, initial_adapter, folder, progress)
    return open_bundle(out, verify=False)


def _write_bundle(
    source: ModelFolder,
    recipe: Recipe,
    initial: Adapter | None,
    folder: Path,
    progress: Callable[[str], None],
) -> None:
    weights = weight_paths(source.path)
    if recipe.task != "image-classification":
        load_tokenizer(source.path, recipe.max_tokens).save(str(folder / str(FILES.tokenizer)))
    compiled = compile_model(source.config, recipe, progress)
    if initial is not None:
        (folder / INITIAL_ADAPTER).write_bytes(adapter_to_bytes(to_bundle(initial, compiled.spec)))
    classifier = _prototype_classifier(source, recipe, progress)
    stored = _write_base(weights, compiled, classifier, recipe.base, folder / FILES.base_weights, progress)
    progress("writing the graphs")
    known = declared_sizes(compiled.graphs.training)  # before the shapes go
    _write_graphs(compiled, stored, folder, recipe.base)
    progress("counting what a training step costs")
    cost = cost_model(
        graph_as_run(folder / FILES.training),
        known,
        compiled.spec,
        most_chunk_rows=0 if compiled.head is None else most_chunk_rows(compiled.head),
    )
    executorch = _write_executorch(source, compiled, classifier, recipe, folder, progress)
    manifest = describe(source, digest_of(weights), compiled, recipe, cost, executorch, folder)
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())


def _prototype_classifier(
    source: ModelFolder, recipe: Recipe, progress: Callable[[str], None]
) -> PrototypeClassifier | None:
    """The classifier in PyTorch where its head is made of labels, which takes the encoder itself to embed."""
    if not recipe.labels:
        return None
    progress("embedding the labels")
    encoder = load_model(source.path, recipe.task)
    tokenizer = load_tokenizer(source.path, recipe.max_tokens)
    prototypes = embed_texts(encoder, tokenizer, list(recipe.labels.values()))
    return PrototypeClassifier(encoder, torch.from_numpy(prototypes)).eval()


def _write_base(
    weights: list[Path],
    compiled: Compiled,
    classifier: PrototypeClassifier | None,
    base: Precision,
    path: Path,
    progress: Callable[[str], None],
) -> dict[str, StoredWeight]:
    own = {} if classifier is None else {PROTOTYPES: classifier.prototypes.numpy()}
    shapes = {name: shape for name, shape in compiled.shapes.items() if name not in own}

    def precision(name: str) -> Precision:
        if name in own:
            return "float32"
        return precision_of(base, shapes[name], is_table=name in compiled.tables)

    files = WeightFiles(weights, compiled.network.base_model_prefix)
    files.check(shapes)
    return write_weights(
        [*shapes, *own],
        lambda name: [own[name]] if name in own else files.read(name),
        precision,
        path,
        lambda written: progress(f"writing the base weights: {written / 1e6:.0f} MB"),
    )


def _write_graphs(
    compiled: Compiled, stored: Mapping[str, StoredWeight], folder: Path, base: Precision
) -> None:
    opset, ir_version = formats_of(base)
    graphs = compiled.graphs
    for name, model in (
        (FILES.training, graphs.training),
        (FILES.eval, graphs.eval),
        (FILES.inference, graphs.inference),
        (FILES.optimizer, build_optimizer(opset)),
    ):
        bind_weights(model, stored, FILES.base_weights, barrier=name == FILES.training)
        del model.graph.value_info[:]  # shapes of before the last edits
        del model.metadata_props[:]
        model.doc_string = ""
        for node in model.graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        model.ir_version = ir_version
        next(entry for entry in model.opset_import if not entry.domain).version = opset
        onnx.save(model, folder / name)


def _write_executorch(
    source: ModelFolder,
    compiled: Compiled,
    classifier: PrototypeClassifier | None,
    recipe: Recipe,
    folder: Path,
    progress: Callable[[str], None],
) -> ExecutorchFiles | None:
    if "executorch" not in recipe.runtimes:
        return None
    model = classifier or load_model(source.path, recipe.task)
    return write_executorch(
        model,
        compiled.spec,
        folder,
        task=recipe.task,
        inputs=compiled.inputs,
        max_batch=_EXECUTORCH_BATCH,
        max_tokens=recipe.max_tokens,
        base=None if classifier is None else classifier.encoder,
        progress=progress,
    )
