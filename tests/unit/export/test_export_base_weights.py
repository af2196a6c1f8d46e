"""Weights in the file and bound to graphs: exact where stored whole, decoded where not, and never folded."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.graphs.products import fold_transposes
from export.weights.binding import bind_weights
from export.weights.weight_file import StoredWeight, write_weights
from hetlora.manifest import Precision

WEIGHT = np.array([[1, 2], [3, 4]], dtype=np.float32)


def _model(*, rows: int = 2, columns: int = 2) -> ModelProto:
    """y = x W^T + s with a matrix W that is an input, and a scalar s."""
    nodes = [
        helper.make_node("Transpose", ["W"], ["V"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "V"], ["xV"]),
        helper.make_node("Add", ["xV", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, columns]),
            helper.make_tensor_value_info("W", TensorProto.FLOAT, [rows, columns]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows])],
        [numpy_helper.from_array(np.float32(10), "s")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _write(path: Path, precision: Precision, **weights: NDArray[np.float32]) -> dict[str, StoredWeight]:
    return write_weights(weights, lambda name: [weights[name]], lambda name: precision, path)


def _run(model: ModelProto, folder: Path, **feeds: NDArray[np.generic]) -> NDArray[np.float32]:
    onnx.save(model, folder / "graph.onnx")
    session = onnxruntime.InferenceSession(
        folder / "graph.onnx", providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )
    (y,) = session.run(None, feeds)
    answer: NDArray[np.float32] = y
    return answer


@pytest.mark.parametrize("folded", [False, True])
def test_bound_weights_are_read_from_the_file(tmp_path: Path, folded: bool) -> None:
    model = _model()
    if folded:
        fold_transposes(model.graph, ["W"])
        assert "Transpose" not in [node.op_type for node in model.graph.node]
    bind_weights(model, _write(tmp_path / "base.bin", "float32", W=WEIGHT), "base.bin", barrier=False)
    y = _run(model, tmp_path, x=np.array([[1, 1]], dtype=np.float32))
    assert y.tolist() == [[13, 17]]  # [1 + 2, 3 + 4] + 10


def test_equal_weights_lie_in_the_file_once(tmp_path: Path) -> None:
    stored = _write(tmp_path / "base.bin", "float32", first=WEIGHT, other=WEIGHT + 1, same=WEIGHT.copy())
    assert stored["same"] == stored["first"]
    # 16 bytes, room up to the next page of 4096, 16 bytes
    assert (stored["other"].data.offset, (tmp_path / "base.bin").stat().st_size) == (4096, 4096 + 16)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_weight_in_blocks_of_rows_gives_the_same_file_as_in_one(tmp_path: Path, precision: Precision) -> None:
    weight = np.random.default_rng(0).standard_normal((7, 32)).astype(np.float32)
    whole = _write(tmp_path / "whole", precision, W=weight)
    blocks = [weight[:3], weight[3:4], weight[4:]]
    stored = write_weights(["W", "again"], lambda _: blocks, lambda _: precision, tmp_path / "blocks")
    assert stored == whole | {"again": whole["W"]}
    assert (tmp_path / "blocks").read_bytes() == (tmp_path / "whole").read_bytes()


def test_equal_bytes_of_another_shape_keep_their_shape(tmp_path: Path) -> None:
    stored = _write(tmp_path / "base.bin", "float32", matrix=WEIGHT, row=WEIGHT.reshape(4))
    assert (stored["matrix"].data.shape, stored["row"].data.shape) == ((2, 2), (4,))
    assert stored["matrix"].data.offset == stored["row"].data.offset == 0


@pytest.mark.parametrize(
    ("precision", "bytes_each"), [("float16", 2), ("bfloat16", 2), ("int8", 1), ("int4", 0.5)]
)
def test_encoded_weights_are_decoded_by_the_graph_within_their_step(
    tmp_path: Path, precision: Precision, bytes_each: float
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 64)).astype(np.float32)
    stored = _write(tmp_path / "base.bin", precision, W=weight)
    assert stored["W"].data.size_bytes == bytes_each * weight.size
    model = _model(rows=8, columns=64)
    fold_transposes(model.graph, ["W"])
    bind_weights(model, stored, "base.bin", barrier=False)
    decoded = np.stack(
        [_run(model, tmp_path, x=row[None])[0] - 10 for row in np.eye(64, dtype=np.float32)], axis=1
    )
    largest = np.abs(weight).max()
    # Half a step: 2^-11 and 2^-8 of a number in 16 bits, 1/127 and 1/7 of the largest in a row otherwise.
    half_step = largest / {"float16": 2**11, "bfloat16": 2**8, "int8": 254, "int4": 14}[precision]
    assert np.abs(decoded - weight).max() <= half_step + 1e-5  # y is near 10: 1e-6 of it is lost
    assert np.abs(decoded - weight).max() > 0


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_rows_of_an_encoded_table_are_decoded_alone(tmp_path: Path, precision: Precision) -> None:
    table = np.array([[1, -2], [4, 0], [0, 0]], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["T", "ids"], ["y"])],
        "graph",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, [2]),
            helper.make_tensor_value_info("T", TensorProto.FLOAT, [3, 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    bind_weights(model, _write(tmp_path / "base.bin", precision, T=table), "base.bin", barrier=False)
    y = _run(model, tmp_path, ids=np.array([1, 0]))
    assert y == pytest.approx(np.array([[4, 0], [1, -2]]), abs=1 / 127)
    decoders = [node for node in model.graph.node if node.op_type in ("Cast", "DequantizeLinear")]
    assert [node.input[0].endswith("/rows") for node in decoders] == [True]  # never the table itself
