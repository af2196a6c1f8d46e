"""An adapter as the checkpoint that ONNX Runtime trains: the one place where the rank enters its graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hetlora.adapter import Tensor


def load_as_checkpoint(bindings: Any, factors: Mapping[str, Tensor]) -> Any:
    """A CheckpointState whose parameters are these factors under their PEFT keys."""
    tensors = [tensor_proto(key, tensor) for key, tensor in factors.items()]
    with TemporaryDirectory(prefix="hetlora-") as folder:
        path = str(Path(folder) / "checkpoint")
        bindings.save_checkpoint(tensors, [], path, False)  # trainable, frozen, where, shapes only
        return bindings.load_checkpoint(path)


def tensor_proto(name: str, tensor: Tensor) -> bytes:
    """An ONNX TensorProto of float32, encoded by hand so that a device needs no onnx package.

    onnx.proto: dims = 1, data_type = 2 (1 is float), name = 8, raw_data = 9.
    """
    data = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
    dims = b"".join(b"\x08" + _varint(size) for size in tensor.shape)
    return dims + b"\x10\x01" + b"\x42" + _delimited(name.encode()) + b"\x4a" + _delimited(data)


def _delimited(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    def groups(rest: int) -> Iterator[int]:
        while rest > 0x7F:
            yield rest & 0x7F | 0x80
            rest >>= 7
        yield rest

    return bytes(groups(number))
