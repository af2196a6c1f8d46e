"""ExecuTorch trains an adapter, and infers, on boards for which there is no ONNX Runtime that trains."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.runtimes.executorch_library import Program
from edge_sdk.runtimes.factors import fed_factors, own_shapes
from edge_sdk.runtimes.feeds import input_feeds, labelled_feeds
from edge_sdk.runtimes.losses import mean_loss
from edge_sdk.runtimes.model import FactorModel
from edge_sdk.runtimes.signature import NO_PENALTY, Signature, inference_signature, training_signature
from hetlora.adapter import AdapterSpec, Tensor
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, RankOutOfRange
from hetlora.graph_names import LABELS
from hetlora.manifest import ExecutorchFiles, Manifest


class ExecutorchRuntime:
    """The frozen base model of a bundle, which tells gradients: a `TrainingRuntime`.

    `threads` limits XNNPACK's threads in the whole process.

    Raises:
        DependencyMissing: ExecuTorch is not installed.
        RankOutOfRange: a rank above the specification's, for which the programs were compiled.
        SettingsError: `threads` is below 1.
        BundleInvalid: the bundle has no ExecuTorch programs, or they cannot be loaded or take other inputs
            than the manifest has.
    """

    name: Final = "executorch"

    def __init__(self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None = None) -> None:
        _check_ranks(bundle.manifest.adapter, ranks)
        self._bundle, self._threads = bundle, threads
        files = programs_of(bundle.manifest)
        self._program = Program(
            bundle.path(files.training),
            bundle.path(files.base_weights),
            inputs=_of_any_size(bundle.manifest, training_signature(bundle.manifest)),
            threads=threads,
        )

    @property
    def most_rows(self) -> int:
        """Rows of the largest batch that the program takes."""
        return self._program.most_rows

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of a batch, without a penalty, and its gradients by PEFT key.

        Raises:
            DataError: an input is missing, has the wrong shape, has more rows or tokens than the program
                takes, or holds numbers outside its range.
            MemoryError: there is no memory for the batch.
        """
        feeds = labelled_feeds(self._bundle.manifest, batch)
        read = [*(feeds[tensor.name] for tensor in self._bundle.manifest.inputs), feeds[LABELS]]
        loss, *answers = self._program.run([*read, *NO_PENALTY.values(), *fed_factors(factors).values()])
        return float(loss), own_shapes(dict(zip(factors, answers, strict=True)), factors)

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        """Score a batch under these factors.

        Raises:
            DataError, MemoryError: as in `gradients`.
        """
        manifest = self._bundle.manifest
        feeds = labelled_feeds(manifest, batch)
        logits = self._inference.logits_of(batch, fed_factors(factors))
        loss = mean_loss(logits, feeds[LABELS])
        return Evaluation(loss=loss, logits=None if manifest.generates else logits)

    @cached_property
    def _inference(self) -> ExecutorchModel:
        # Opened when first asked for: most devices only train, and it packs the weights a second time.
        return ExecutorchModel(self._bundle, threads=self._threads)


class ExecutorchModel(FactorModel):
    """A bundle's model under finished factors, or untrained where none are given.

    Raises:
        DependencyMissing: ExecuTorch is not installed.
        SpecMismatch, NonFiniteValues: as `FactorModel`.
        SettingsError: `threads` is below 1.
        BundleInvalid: the bundle has no ExecuTorch programs, or they cannot be loaded or take other inputs
            than the manifest has.
    """

    def __init__(self, bundle: Bundle, factors: Factors | None = None, *, threads: int | None = None) -> None:
        manifest = bundle.manifest
        super().__init__(manifest, factors)
        files = programs_of(manifest)
        self._program = Program(
            bundle.path(files.inference),
            bundle.path(files.base_weights),
            inputs=_of_any_size(manifest, inference_signature(manifest)),
            threads=threads,
        )

    def logits_of(self, batch: Batch, factors: Factors) -> NDArray[np.float32]:
        """The same under factors as the program takes them, in its order."""
        feeds = input_feeds(self._manifest, batch)
        inputs = [feeds[tensor.name] for tensor in self._manifest.inputs]
        answers = [
            self._program.run([*(array[part] for array in inputs), *factors.values()])[0]
            for part in _parts(len(inputs[0]), self._program.most_rows)
        ]
        return np.concatenate(answers)


def _check_ranks(spec: AdapterSpec, ranks: Mapping[str, int]) -> None:
    for name, rank in ranks.items():
        if rank > spec.max_rank:
            raise RankOutOfRange(
                f"rank of {name}, with frozen ones, passes what ExecuTorch's programs were compiled for",
                got=rank,
                expected=f"up to {spec.max_rank}",
            )


def _parts(rows: int, most: int) -> list[slice]:
    return [slice(start, start + most) for start in range(0, rows, most)]


def programs_of(manifest: Manifest) -> ExecutorchFiles:
    """The ExecuTorch files of a bundle.

    Raises:
        BundleInvalid: it was exported without them.
    """
    if manifest.executorch is None:
        raise BundleInvalid("the bundle has no ExecuTorch programs", expected="one exported with them")
    return manifest.executorch


def _of_any_size(manifest: Manifest, signature: Signature) -> Signature:
    """The same with a batch of any size: programs have limits, and stamping leaves them as they are."""
    batch = {LABELS, *(tensor.name for tensor in manifest.inputs)}
    return {
        key: (dtype, tuple(map(str, sizes)) if key in batch else sizes)
        for key, (dtype, sizes) in signature.items()
    }
