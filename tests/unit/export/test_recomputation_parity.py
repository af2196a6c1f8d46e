"""Activations that are made a second time: the same numbers, and fewer of them kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto
from parity import batch_for, export_family, open_graphs, trained_adapter
from tiny_families import write_tiny_family

from export.graphs.graph_edit import reads_of, subgraphs
from hetlora.manifest import Recompute


@pytest.mark.parametrize("how", ["selective", "layer"])
@pytest.mark.parametrize("name", ["llama", "opt", "gemma3", "gpt2", "bert", "mobilebert", "vit", "t5"])
def test_recomputation_changes_no_number(name: str, how: Recompute, tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", name)
    plain = export_family(name, model, tmp_path / "plain")
    again = export_family(name, model, tmp_path / "again", recompute=how)
    batch, adapter = batch_for(plain), trained_adapter(plain.manifest.adapter)
    runtimes = [open_graphs(bundle, adapter) for bundle in (plain, again)]
    losses = [[runtime.step(batch) for _ in range(3)] for runtime in runtimes]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    gradients = [runtime.gradients() for runtime in runtimes]
    for key, gradient in gradients[0].items():
        assert np.abs(gradient - gradients[1][key]).max() <= 1e-6 * np.abs(gradient).max() + 1e-9, key
    costs = [bundle.manifest.cost_model for bundle in (plain, again)]
    alive = [cost.peak_live_bytes(cost.step(batch=2, tokens=32, rank=4)) for cost in costs]
    assert alive[1] < alive[0]


@pytest.mark.parametrize("name", ["mobilebert", "opt"])
def test_nothing_is_read_before_it_is_made(name: str, tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", name)
    bundle = export_family(name, model, tmp_path / "bundle", recompute="layer")
    graph = onnx.load(bundle.path(bundle.manifest.graphs.training), load_external_data=False).graph
    made = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    for node in graph.node:
        assert reads_of(node) - {name for inner in subgraphs(node) for name in names_within(inner)} <= made
        made |= set(node.output)


def names_within(graph: GraphProto) -> set[str]:
    """What a body makes itself, or gets."""
    made = {name for node in graph.node for name in node.output}
    return made | {value.name for value in (*graph.input, *graph.initializer)}
