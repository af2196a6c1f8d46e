"""Writes what was compiled: the graphs, and the frozen weights that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.bundle_manifest import FILES, GRADIENTS, formats_of
from export.compilation import Compiled
from export.graphs.graph_edit import strip_notes
from export.plain.operators import use_plain_operators
from export.source.weight_files import WeightFiles
from export.training.gradient_outputs import with_gradient_outputs
from export.training.training_graph import build_optimizer
from export.weights.binding import bind_weights
from export.weights.precision import precision_of
from export.weights.weight_file import StoredWeight, write_weights
from hetlora.manifest import Precision


def write_base_weights(
    compiled: Compiled,
    files: WeightFiles,
    own: Mapping[str, NDArray[np.float32]],
    path: Path,
    progress: Callable[[str], None],
) -> dict[str, StoredWeight]:
    """Write the model's weights as the recipe has them, and our `own` in float32."""
    shapes = {name: shape for name, shape in compiled.shapes.items() if name not in own}
    files.check(shapes)

    def precision(name: str) -> Precision:
        if name in own:
            return "float32"
        return precision_of(compiled.recipe.base, shapes[name], is_table=name in compiled.tables)

    return write_weights(
        [*shapes, *own],
        lambda name: [own[name]] if name in own else files.read(name),
        precision,
        path,
        lambda written: progress(f"writing the base weights: {written / 1e6:.0f} MB"),
    )


def write_graphs(compiled: Compiled, stored: Mapping[str, StoredWeight], folder: Path) -> None:
    """Write the graphs, bound to the base weights as these were `stored` in the folder."""
    graphs = compiled.graphs
    opset, ir_version = formats_of(compiled.recipe.base)
    models = {
        FILES.training: graphs.training,
        FILES.eval: graphs.eval,
        FILES.inference: graphs.inference,
        FILES.optimizer: build_optimizer(opset),
    }
    if compiled.recipe.android or compiled.recipe.web:
        models[GRADIENTS] = with_gradient_outputs(graphs.training, compiled.trained)
    for name, model in models.items():
        bind_weights(model, stored, FILES.base_weights, barrier=name in (FILES.training, GRADIENTS))
        if name == GRADIENTS:
            use_plain_operators(model)
        strip_notes(model)
        model.ir_version = ir_version
        next(entry for entry in model.opset_import if not entry.domain).version = opset
        onnx.save(model, folder / name)
