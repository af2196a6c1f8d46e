"""The chunked loss against PyTorch: any number of chunks, ignored labels, softcap, and no label at all."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper

import export.training.causal_loss
from export.graphs.graph_builder import GraphBuilder
from export.graphs.microsoft import use_microsoft_operators
from export.graphs.output_head import OutputHead
from export.training.causal_loss import HIDDEN_ROWS, add_chunked_loss

VOCABULARY, HIDDEN = 11, 6


def _model(softcap: float | None, *, shift: bool) -> ModelProto:
    graph = helper.make_graph([], "loss", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    use_microsoft_operators(model)
    builder = GraphBuilder(model.graph)
    builder.input(HIDDEN_ROWS, ["rows", HIDDEN])
    builder.input("W", [VOCABULARY, HIDDEN])
    head = OutputHead("unused", "W", "unused", VOCABULARY, HIDDEN, softcap)
    add_chunked_loss(builder, head, shift=shift, loss="loss", gradient="gradient")
    builder.output("loss", [])
    builder.output("gradient", ["rows", HIDDEN])
    return model


def _run(
    model: ModelProto, hidden: NDArray[np.float32], weight: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[float, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {HIDDEN_ROWS: hidden.reshape(-1, HIDDEN), "W": weight, "labels": labels}
    loss, gradient = session.run(["loss", "gradient"], feeds)
    return float(loss), gradient.reshape(hidden.shape)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("rows_at_once", [1, 3, 4, 100])
def test_loss_and_gradient_are_those_of_torch_however_large_a_chunk_is(
    rows_at_once: int, softcap: float | None, shift: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.training.causal_loss, "_CHUNK_NUMBERS", rows_at_once * VOCABULARY)
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((3, 5, HIDDEN)).astype(np.float32)
    weight = 2 * rng.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)
    labels = rng.integers(0, VOCABULARY, (3, 5))
    labels[0, :3] = labels[2] = -100  # a beginning, and a whole row
    loss, gradient = _run(_model(softcap, shift=shift), hidden, weight, labels)
    states = torch.from_numpy(hidden).requires_grad_()
    logits = states @ torch.from_numpy(weight).T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    wanted = torch.from_numpy(labels)
    if shift:
        logits, wanted = logits[:, :-1], wanted[:, 1:]
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), wanted.reshape(-1))
    expected.backward()
    assert abs(loss - expected.item()) <= 1e-5
    assert states.grad is not None
    assert np.abs(gradient - states.grad.numpy()).max() <= 1e-6


def test_batch_without_a_label_has_loss_zero_and_no_gradient() -> None:
    hidden = np.ones((2, 3, HIDDEN), dtype=np.float32)
    weight = np.ones((VOCABULARY, HIDDEN), dtype=np.float32)
    loss, gradient = _run(_model(None, shift=True), hidden, weight, np.full((2, 3), -100))
    assert loss == 0
    assert not gradient.any()


def test_logits_of_all_rows_never_exist_together() -> None:
    (scan,) = (node for node in _model(None, shift=False).graph.node if node.op_type == "Scan")
    outside = [node for node in _model(None, shift=False).graph.node if "MatMul" in node.op_type]
    assert not outside
    assert any("MatMul" in node.op_type for node in scan.attribute[0].g.node)


def test_large_logits_do_not_overflow() -> None:
    hidden = np.full((1, 2, HIDDEN), 100, dtype=np.float32)
    weight = np.zeros((VOCABULARY, HIDDEN), dtype=np.float32)
    weight[3] = 100  # a logit of 60000 beside zeros
    loss, gradient = _run(_model(None, shift=False), hidden, weight, np.array([[3, 3]]))
    assert loss == 0
    assert np.isfinite(gradient).all()
