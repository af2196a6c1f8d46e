from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from edge_sdk.runtimes.onnx_checkpoint import tensor_proto


def test_bytes_are_those_of_the_protocol_buffer() -> None:
    # dims 1 and 2: 08 01 08 02; float: 10 01; name "w": 42 01 77; 8 bytes of 1.0 and -2.0: 4a 08 ...
    expected = bytes.fromhex("08010802 1001 420177 4a08 0000803f 000000c0")
    assert tensor_proto("w", np.array([[1, -2]], dtype=np.float32)) == expected


@given(st.lists(st.integers(0, 300), min_size=1, max_size=3).filter(lambda shape: np.prod(shape) < 10_000))
def test_onnx_reads_back_what_was_written(shape: list[int]) -> None:
    tensor = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    read = TensorProto.FromString(tensor_proto("module.lora_A.weight", tensor))
    assert read.name == "module.lora_A.weight"
    assert numpy_helper.to_array(read).tolist() == tensor.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_does_not_matter(order: str) -> None:
    tensor = np.asarray(np.arange(6, dtype=np.float32).reshape(2, 3), order=order)  # type: ignore[call-overload]
    assert numpy_helper.to_array(TensorProto.FromString(tensor_proto("w", tensor))).tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]
