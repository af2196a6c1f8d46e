from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.base_weights import bind_weights, detach_weights, write_weights

WEIGHT = np.array([[1, 2], [3, 4]], dtype=np.float32)


def _model() -> ModelProto:
    """y = x W + s with a matrix W, a scalar s and an integer table that nothing reads."""
    nodes = [helper.make_node("MatMul", ["x", "W"], ["xW"]), helper.make_node("Add", ["xW", "s"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(WEIGHT, "W"),
            numpy_helper.from_array(np.float32(10), "s"),
            numpy_helper.from_array(np.array([0, 1]), "table"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_weights_become_inputs_and_small_constants_stay() -> None:
    model = _model()
    weights = detach_weights(model)
    assert {name: weight.tolist() for name, weight in weights.items()} == {"W": WEIGHT.tolist()}
    assert [value.name for value in model.graph.input] == ["x", "W"]
    assert [tensor.name for tensor in model.graph.initializer] == ["s", "table"]


def test_bound_weights_are_read_from_the_file(tmp_path: Path) -> None:
    model = _model()
    places = write_weights(detach_weights(model), tmp_path / "base.bin")
    bind_weights(model, places, "base.bin")
    onnx.save(model, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.array([[1, 1]], dtype=np.float32)})
    assert y.tolist() == [[14, 16]]  # [1 + 3, 2 + 4] + 10


def test_equal_weights_lie_in_the_file_once(tmp_path: Path) -> None:
    weights = {"first": WEIGHT, "other": WEIGHT + 1, "same": WEIGHT.copy()}
    places = write_weights(weights, tmp_path / "base.bin")
    assert places["same"] == places["first"]
    # 16 bytes, room up to the next page of 4096, 16 bytes
    assert (places["other"].offset, (tmp_path / "base.bin").stat().st_size) == (4096, 4096 + 16)


def test_equal_bytes_of_another_shape_keep_their_shape(tmp_path: Path) -> None:
    places = write_weights({"matrix": WEIGHT, "row": WEIGHT.reshape(4)}, tmp_path / "base.bin")
    assert (places["matrix"].shape, places["row"].shape) == ((2, 2), (4,))
    assert places["matrix"].offset == places["row"].offset == 0
