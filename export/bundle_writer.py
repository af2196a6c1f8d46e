"""Turns a pretrained model and LoRA targets into one bundle folder; weights pass through one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from export.bundle_manifest import FILES, INITIAL_ADAPTER, TOKENIZER, describe
from export.compilation import Compiled, compile_model
from export.cost.cost_model import cost_model
from export.cost.run_order import graph_as_run
from export.cost.tensor_sizes import Sized, declared_sizes
from export.executorch.files import require_executorch, write_executorch
from export.graph_files import write_base_weights, write_graphs
from export.new_folder import whole_folder_or_none
from export.peft.peft_adapter import to_bundle
from export.prototype_classifier import PrototypeClassifier, embed_texts
from export.pytorch_files import check_architecture, write_pytorch
from export.quiet import quiet_libraries, report_to_nobody
from export.recipe import Recipe, make_recipe
from export.source.model_folder import ModelFolder, load_model, load_tokenizer, open_model
from export.source.task_facts import task_facts
from export.source.weight_files import WeightFiles, digest_of, weight_paths
from export.source.weightless import tied_names
from export.training.causal_loss import most_chunk_rows
from export.training.classifier_graph import PROTOTYPES
from hetlora.adapter import Adapter, AdapterSpec
from hetlora.bundle import Bundle, open_bundle
from hetlora.cost import CostModel
from hetlora.digest import sha256_of_file
from hetlora.manifest import MANIFEST_NAME, ExecutorchFiles, reads_images, takes_labels
from hetlora.messages.common import ObjectRef
from hetlora.tensors import adapter_to_bytes

# What the ExecuTorch programs plan their memory for.
_EXECUTORCH_BATCH: Final = 8


def export_bundle(
    model: str,
    out: Path,
    *,
    targets: Sequence[str],
    task: str = "text-classification",
    labels: Sequence[str] | Mapping[str, str] = (),
    last_layers: int | None = None,
    trained_layers: int | None = None,
    max_rank: int = 32,
    scaling: float = 2.0,
    max_tokens: int = 64,
    base: str = "float32",
    recompute: str = "none",
    runtimes: Collection[str] = ("onnx",),
    xnnpack_transposes: bool = True,
    initial_adapter: Adapter | None = None,
    revision: str | None = None,
    progress: Callable[[str], None] = report_to_nobody,
) -> Bundle:
    """Compile a local model folder or hub id into a bundle at `out`.

    Args:
        targets: endings or patterns of PEFT module names, or "all-linear"; see `export.graphs.targets`.
        labels: of text-classification: `name` or `name=describing text`; or a mapping gives the texts by
            name. The name goes into the manifest, the text is embedded as the class prototype.
        last_layers: adapt the last so many transformer blocks alone; the backward pass ends there.
        trained_layers: train the last so many alone of those that are adapted, and feed the factors of the
            others: a variant of the same adapter that takes less. Not for "executorch" or "pytorch".
        base: how the frozen weights are stored and kept in memory.
        recompute: activations that the backward pass makes anew: "none", "selective" or "layer".
        runtimes: "onnx" is always written, "executorch" adds its programs, "pytorch" what its
            model is built from, "android" and "web" the graph of gradients that both train with.
        xnnpack_transposes: whether ExecuTorch's XNNPACK transposes too: faster, and on some boards it
            crashes.
        initial_adapter: what runs on this bundle begin with, such as PEFT's of `export.peft.peft_adapter`.

    The same inputs give the same bytes, and a failed export leaves nothing behind. The prototypes of
    text-classification are sums that another kind of processor may round otherwise.

    Raises:
        ModelNotExportable: model, tokenizer, labels, targets, a choice, a number or `out` cannot be used.
        RankOutOfRange: `max_rank` does not fit every target module, or is below a rank of `initial_adapter`.
        SpecMismatch: `initial_adapter` fits another model, or adapters of `max_rank` would be too large.
        NonFiniteValues: `initial_adapter` cannot be had at so small a `scaling`.
        DependencyMissing: ExecuTorch is asked for and not installed.
    """
    recipe = make_recipe(
        task=task,
        labels=labels,
        targets=targets,
        runtimes=runtimes,
        last_layers=last_layers,
        trained_layers=trained_layers,
        max_rank=max_rank,
        scaling=scaling,
        max_tokens=max_tokens,
        base=base,
        recompute=recompute,
        xnnpack_transposes=xnnpack_transposes,
    )
    if recipe.executorch:
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
    if recipe.pytorch:
        check_architecture(source.config, recipe.task)  # now, and not when the graphs are done
    weights = weight_paths(source.path)
    tokenizer = None if reads_images(recipe.task) else load_tokenizer(source, recipe.max_tokens)
    compiled = compile_model(source.config, recipe, progress)
    vocabulary = None if compiled.head is None else compiled.head.vocabulary
    facts = task_facts(source, recipe.task, labels=recipe.labels, vocabulary=vocabulary)
    _write_as_given(tokenizer, initial, compiled.spec, folder)
    own = _own_weights(source, recipe, tokenizer, progress)
    files = WeightFiles(weights, compiled.network.base_model_prefix, tied_names(compiled.network))
    stored = write_base_weights(compiled, files, own, folder / FILES.base_weights, progress)
    progress("writing the graphs")
    known = declared_sizes(compiled.graphs.training)  # before the shapes go
    write_graphs(compiled, stored, folder)
    progress("counting what a training step costs")
    cost = _cost(compiled, known, folder / FILES.training)
    executorch = None
    if recipe.executorch:
        executorch = _write_executorch(source, compiled, own.get(PROTOTYPES), folder, progress)
    pytorch = None
    if recipe.pytorch:
        pytorch = write_pytorch(compiled.network.config, recipe.task, stored, folder / FILES.base_weights)
    manifest = describe(
        source,
        compiled,
        facts,
        weights_sha256=digest_of(weights),
        cost=cost,
        executorch=executorch,
        pytorch=pytorch,
        files=_entries(folder),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())


def _write_as_given(
    tokenizer: Tokenizer | None, initial: Adapter | None, spec: AdapterSpec, folder: Path
) -> None:
    """Write what is not compiled, where there is any."""
    if tokenizer is not None:
        # Not with its own `save`, whose errors are no OSError.
        (folder / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    if initial is not None:
        (folder / INITIAL_ADAPTER).write_bytes(adapter_to_bytes(to_bundle(initial, spec)))


def _own_weights(
    source: ModelFolder, recipe: Recipe, tokenizer: Tokenizer | None, progress: Callable[[str], None]
) -> dict[str, NDArray[np.float32]]:
    """Weights that no file of the model has: the prototypes of labels that an export names."""
    if not takes_labels(recipe.task):
        return {}
    progress("embedding the labels")
    # But for ExecuTorch the one time that all weights are in memory.
    encoder = load_model(source.path, recipe.task)
    return {PROTOTYPES: embed_texts(encoder, tokenizer, list(recipe.labels.values()))}


def _cost(compiled: Compiled, known: Mapping[str, Sized], training: Path) -> CostModel:
    chunk_rows = 0 if compiled.head is None else most_chunk_rows(compiled.head)
    return cost_model(graph_as_run(training), known, compiled.spec, most_chunk_rows=chunk_rows)


def _entries(folder: Path) -> dict[str, ObjectRef]:
    return {
        path.name: ObjectRef(sha256=sha256_of_file(path), size_bytes=path.stat().st_size)
        for path in sorted(folder.iterdir())
    }


def _write_executorch(
    source: ModelFolder,
    compiled: Compiled,
    prototypes: NDArray[np.float32] | None,
    folder: Path,
    progress: Callable[[str], None],
) -> ExecutorchFiles:
    recipe = compiled.recipe
    model = load_model(source.path, recipe.task)
    return write_executorch(
        model if prototypes is None else PrototypeClassifier(model, torch.from_numpy(prototypes)),
        compiled.spec,
        folder,
        task=recipe.task,
        inputs=compiled.inputs,
        max_batch=_EXECUTORCH_BATCH,
        max_tokens=recipe.max_tokens,
        base=model,
        xnnpack_transposes=recipe.xnnpack_transposes,
        progress=progress,
    )
