"""Trains an adapter with ONNX Runtime's training build, called without its PyTorch wrappers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation
from edge_sdk.runtimes.onnx_library import import_onnxruntime
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.algebra import pruned_rank
from hetlora.bundle import Bundle
from hetlora.errors import DataError, DependencyMissing, NonFiniteValues, RankOutOfRange, SpecMismatch
from hetlora.tensors import factor_keys

LABELS: Final = "labels"


class OnnxRuntime:
    """One adapter being trained over a bundle's frozen base model: a `TrainingRuntime`.

    The tail that HetLoRA's penalty acts on starts at floor(pruning_decay * rank) of the adapter as given.
    `threads` limits the threads of every kernel; None leaves the choice to ONNX Runtime (one per core).

    Raises:
        DependencyMissing: no ONNX Runtime with training is installed.
        SpecMismatch: the adapter is not of the bundle's specification.
        RankOutOfRange: the modules' ranks differ, or are 0.
    """

    def __init__(
        self,
        bundle: Bundle,
        adapter: Adapter,
        *,
        pruning_decay: float,
        pruning_penalty: float,
        threads: int | None = None,
    ) -> None:
        rank = _common_rank(bundle, adapter)
        self._bundle, self._spec, self._threads = bundle, adapter.spec, threads
        self._tail = np.zeros(rank, dtype=np.float32)
        self._tail[pruned_rank(rank, pruning_decay) :] = 1
        self._penalty = np.array(pruning_penalty, dtype=np.float32)
        self._onnxruntime = import_onnxruntime()
        self._native = _training_bindings()
        self._state = self._checkpoint(adapter)
        graphs, native = bundle.manifest.graphs, self._native
        device = native.OrtDevice(native.OrtDevice.cpu(), native.OrtDevice.default_memory(), 0)
        options = session_options(native, threads)
        self._module = native.Module(str(bundle.path(graphs.training)), self._state, None, device, options)
        self._optimizer = native.Optimizer(str(bundle.path(graphs.optimizer)), self._state, device, options)

    def train_step(self, batch: Batch, *, learning_rate: float) -> float:
        """Take one AdamW step and return the loss before it, pruning penalty included.

        Raises:
            DataError: an input is missing, has the wrong shape or holds a number outside its range.
            NonFiniteValues: the loss is NaN or infinite; the adapter stays as it was.
        """
        feeds = {
            **_checked(self._bundle, batch),
            "pruning_tail": self._tail,
            "pruning_penalty": self._penalty,
        }
        fetches = self._native.OrtValueVector()
        try:
            self._module.train_step([feeds[name] for name in self._module.input_names(True)], fetches)
        except RuntimeError as error:
            raise _refused(error) from error
        loss = float(fetches[0].numpy())
        if not np.isfinite(loss):
            self._module.lazy_reset_grad()
            raise NonFiniteValues("the training loss", got=loss, expected="a finite number")
        self._optimizer.set_learning_rate(learning_rate)
        self._optimizer.optimizer_step()
        self._module.lazy_reset_grad()
        return loss

    def evaluate(self, batch: Batch) -> Evaluation:
        """Score a batch with the adapter as it stands; the loss leaves the pruning penalty out.

        Raises:
            DataError: as in `train_step`.
        """
        try:
            loss, logits = self._evaluator.run(
                ["loss", "logits"], {**_checked(self._bundle, batch), **self._tensors("data")}
            )
        except RuntimeError as error:
            raise _refused(error) from error
        return Evaluation(loss=float(loss), logits=logits)

    def adapter(self) -> Adapter:
        """A copy of the adapter as it stands."""
        tensors = self._tensors("data")
        return Adapter(
            self._spec,
            {
                module.name: LoraFactors(*(tensors[key] for key in factor_keys(module.name)))
                for module in self._spec.modules
            },
        )

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last training step under their PEFT keys."""
        return self._tensors("grad")

    def _tensors(self, attribute: str) -> dict[str, Tensor]:
        return {
            key: np.array(getattr(self._state.get_parameter(key), attribute).numpy(), dtype=np.float32)
            for module in self._spec.modules
            for key in factor_keys(module.name)
        }

    @cached_property
    def _evaluator(self) -> Any:
        # A session of its own, made when first asked for: most devices only train, and it costs memory.
        options = session_options(self._native, self._threads)
        path = self._bundle.path(self._bundle.manifest.graphs.eval)
        return self._onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _checkpoint(self, adapter: Adapter) -> Any:
        # Only a checkpoint file gives parameters their shape, so the rank enters here.
        tensors = [
            tensor_proto(key, tensor)
            for module, factors in adapter
            for key, tensor in zip(factor_keys(module.name), (factors.lora_A, factors.lora_B), strict=True)
        ]
        with TemporaryDirectory(prefix="hetlora-") as folder:
            path = str(Path(folder) / "checkpoint")
            self._native.save_checkpoint(tensors, [], path, False)
            return self._native.load_checkpoint(path)


def session_options(native: Any, threads: int | None) -> Any:
    """Options of every session on a device: `threads` kernel threads at most, that sleep when idle."""
    options = native.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads burn battery, and starve the other devices of a simulation.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def tensor_proto(name: str, tensor: Tensor) -> bytes:
    """An ONNX TensorProto of float32, written by hand so that the device needs no onnx package.

    Protocol buffers, onnx.proto: dims = 1, data_type = 2 (1 is float), name = 8, raw_data = 9.
    """
    data = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
    dims = b"".join(b"\x08" + _varint(size) for size in tensor.shape)
    encoded = name.encode()
    return (
        dims + b"\x10\x01" + b"\x42" + _varint(len(encoded)) + encoded + b"\x4a" + _varint(len(data)) + data
    )


def _varint(number: int) -> bytes:
    def groups(rest: int) -> Iterator[int]:
        while rest > 0x7F:
            yield rest & 0x7F | 0x80
            rest >>= 7
        yield rest

    return bytes(groups(number))


def _training_bindings() -> Any:
    from onnxruntime.capi import _pybind_state as native

    if not hasattr(native, "CheckpointState"):
        raise DependencyMissing(
            "the installed ONNX Runtime cannot train",
            got="an inference-only build",
            expected="pip uninstall onnxruntime, then pip install onnxruntime-training-cpu==1.19.2",
        )
    return native


def _common_rank(bundle: Bundle, adapter: Adapter) -> int:
    if adapter.spec != bundle.manifest.adapter:
        raise SpecMismatch("the adapter is not of this bundle's specification")
    ranks = sorted(set(adapter.ranks.values()))
    if len(ranks) != 1 or ranks[0] < 1:
        raise RankOutOfRange(
            "the training graph takes one rank for all modules",
            got=f"ranks {ranks}",
            expected="one, 1 or more",
        )
    return ranks[0]


def _checked(bundle: Bundle, batch: Batch) -> dict[str, NDArray[Any]]:
    """The arrays that the graphs read, checked before native code sees them."""
    names = [tensor.name for tensor in bundle.manifest.inputs]
    missing = [name for name in [*names, LABELS] if name not in batch]
    if missing:
        raise DataError(
            "a batch lacks inputs", got=f"{sorted(batch)} without {missing}", expected=[*names, LABELS]
        )
    labels = np.ascontiguousarray(batch[LABELS], dtype=np.int64)
    classes = len(bundle.manifest.labels)
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            "labels of a batch", got=f"{labels.shape}: {labels}", expected=f"(batch,) of 0 to {classes - 1}"
        )
    return {**token_inputs(names, batch, rows=len(labels)), LABELS: labels}


def token_inputs(names: Sequence[str], batch: Batch, *, rows: int | None = None) -> dict[str, NDArray[Any]]:
    """The named inputs as int64 of one common shape (batch, tokens)."""
    feeds = {name: np.ascontiguousarray(batch[name], dtype=np.int64) for name in names}
    shapes = {name: array.shape for name, array in feeds.items()}
    first = next(iter(shapes.values()))
    if len(set(shapes.values())) != 1 or len(first) != 2 or 0 in first or rows not in (None, first[0]):
        raise DataError("inputs of a batch", got=shapes, expected=f"one shape ({rows or 'batch'}, tokens)")
    return feeds


def _refused(error: RuntimeError) -> DataError:
    # Token numbers outside the vocabulary or past the last position are found by the kernels.
    return DataError(
        "the model refuses the batch",
        got=str(error).splitlines()[0],
        expected="token numbers of its tokenizer",
    )
