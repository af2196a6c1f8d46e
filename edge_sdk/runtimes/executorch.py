"""ExecuTorch trains an adapter, and infers, on boards for which there is no ONNX Runtime that trains."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.runtimes.executorch_library import Array, Program
from edge_sdk.runtimes.factors import fed_factors, inference_factors, own_shapes
from edge_sdk.runtimes.feeds import input_feeds, labelled_feeds
from edge_sdk.runtimes.losses import mean_loss
from edge_sdk.runtimes.signature import Signature, inference_signature, training_signature
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import Adapter, AdapterSpec, Tensor
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, RankOutOfRange
from hetlora.graph_names import LABELS
from hetlora.manifest import ExecutorchFiles, Manifest

# The pruning decay and penalty that the training program takes: the penalty is the trainer's.
_NO_PENALTY: Final[tuple[Array, Array]] = (np.array(1, np.float64), np.array(0, np.float32))


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
        """
        feeds = labelled_feeds(self._bundle.manifest, batch)
        read = [*(feeds[tensor.name] for tensor in self._bundle.manifest.inputs), feeds[LABELS]]
        loss, *answers = self._program.run([*read, *_NO_PENALTY, *fed_factors(factors).values()])
        return float(loss), own_shapes(dict(zip(factors, answers, strict=True)), factors)

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        """Score a batch under these factors.

        Raises:
            DataError: as in `gradients`.
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


class ExecutorchModel:
    """A bundle's model under one adapter, or untrained where none is given.

    An adapter is nothing but input: ranks may be unequal or 0, and another one can be had for one call.
    `parametrisation` has what stands beside the adapter given here: cores, frozen factors, amplification.

    Raises:
        DependencyMissing: ExecuTorch is not installed.
        SpecMismatch: the adapter is not of the bundle's specification, or what stands beside it not of it.
        RankOutOfRange: with the frozen factors it has more ranks than the programs were compiled for.
        SettingsError: `threads` is below 1.
        BundleInvalid: the bundle has no ExecuTorch programs, or they cannot be loaded or take other inputs
            than the manifest has.
    """

    def __init__(
        self,
        bundle: Bundle,
        adapter: Adapter | None = None,
        *,
        threads: int | None = None,
        parametrisation: Parametrisation | None = None,
    ) -> None:
        self._manifest = bundle.manifest
        if adapter is not None and parametrisation is not None:
            _check_ranks(adapter.spec, parametrisation.ranks(adapter))
        self._factors = inference_factors(self._manifest.adapter, adapter, how=parametrisation)
        files = programs_of(self._manifest)
        self._program = Program(
            bundle.path(files.inference),
            bundle.path(files.base_weights),
            inputs=_of_any_size(self._manifest, inference_signature(self._manifest)),
            threads=threads,
        )

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Logits in float32, (batch, labels) or (batch, tokens, vocabulary), under `adapter` if given.

        `batch` holds the manifest's inputs; anything else in it is ignored.

        Raises:
            DataError: an input is missing, of the wrong shape, or holds numbers that are no tokens.
            SpecMismatch: the adapter is not of the bundle's specification.
        """
        factors = self._factors if adapter is None else inference_factors(self._manifest.adapter, adapter)
        return self.logits_of(batch, factors)

    def logits_of(self, batch: Batch, factors: Factors) -> NDArray[np.float32]:
        """The same under factors as the program takes them, by PEFT key in its order."""
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
