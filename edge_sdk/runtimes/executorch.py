"""ExecuTorch trains an adapter, and infers, on boards for which there is no ONNX Runtime that trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation
from edge_sdk.runtimes.executorch_library import Array, Program
from edge_sdk.runtimes.factors import check_trainable, inference_factors
from edge_sdk.runtimes.feeds import input_feeds, labelled_feeds
from edge_sdk.runtimes.host_training import HostTraining
from edge_sdk.runtimes.losses import mean_loss
from edge_sdk.runtimes.settings import check_learning_rate, check_penalty
from edge_sdk.runtimes.signature import Signature, inference_signature, training_signature
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, RankOutOfRange
from hetlora.graph_names import IGNORED_LABEL, LABELS
from hetlora.manifest import ExecutorchFiles, Manifest


class ExecutorchRuntime:
    """One adapter being trained over a bundle's frozen base model: a `TrainingRuntime`.

    Modules may have unequal ranks; those of rank 0 are not trained. HetLoRA's penalty acts in each module on
    the ranks from floor(pruning_decay * rank) on. `threads` limits XNNPACK's threads in the whole process.

    Raises:
        DependencyMissing: ExecuTorch is not installed.
        SpecMismatch: the adapter is not of the bundle's specification, or cores or frozen factors do not fit
            it.
        RankOutOfRange: every module has rank 0, or with the frozen factors one above the specification's.
        SettingsError: `pruning_decay`, `pruning_penalty` or `threads` means nothing.
        BundleInvalid: the bundle has no ExecuTorch programs, or they cannot be loaded or take other inputs
            than the manifest has.
    """

    def __init__(
        self,
        bundle: Bundle,
        adapter: Adapter,
        *,
        pruning_decay: float,
        pruning_penalty: float,
        threads: int | None = None,
        parametrisation: Parametrisation | None = None,
    ) -> None:
        check_penalty(pruning_decay=pruning_decay, pruning_penalty=pruning_penalty)
        check_trainable(bundle.manifest.adapter, adapter)
        how = parametrisation or Parametrisation()
        _check_ranks(adapter, how)
        self._bundle, self._threads = bundle, threads
        files = programs_of(bundle.manifest)
        self._program = Program(
            bundle.path(files.training),
            bundle.path(files.base_weights),
            inputs=_of_any_size(bundle.manifest, training_signature(bundle.manifest)),
            threads=threads,
        )
        self._scalars: list[Array] = [
            np.array(pruning_decay, np.float64),
            np.array(pruning_penalty if how.is_plain else 0, np.float32),
        ]
        self._host = HostTraining(
            adapter,
            how,
            bundle.manifest.optimizer,
            pruning_decay=pruning_decay,
            pruning_penalty=0 if how.is_plain else pruning_penalty,
        )

    def train_step(self, batch: Batch, *, learning_rate: float) -> float:
        """Take one AdamW step and return the loss before it, pruning penalty included.

        `batch` holds the manifest's inputs and `labels`; more rows than the program takes go through it in
        parts, which add up to the same loss and gradients. A loss that is not finite is returned too, and
        leaves the adapter as it was.

        Raises:
            DataError: an input is missing, has the wrong shape, is longer than the programs take, or
                holds numbers outside its range.
            SettingsError: a `learning_rate` that is negative or not finite.
        """
        check_learning_rate(learning_rate)
        feeds = labelled_feeds(self._bundle.manifest, batch)
        read = [*(feeds[tensor.name] for tensor in self._bundle.manifest.inputs), feeds[LABELS]]
        parts = _parts(len(feeds[LABELS]), self._program.most_rows)
        factors = self._host.numbers.fed()
        loss, gradients = 0.0, [np.zeros_like(factor) for factor in factors.values()]
        for part, share in zip(parts, _shares(feeds[LABELS], parts), strict=True):
            fed = [*(array[part] for array in read), *self._scalars, *factors.values()]
            part_loss, *part_gradients = self._program.run(fed)
            loss += share * float(part_loss)
            for gradient, own in zip(gradients, part_gradients, strict=True):
                gradient += share * own
        return self._host.step(loss, dict(zip(factors, gradients, strict=True)), learning_rate)

    def evaluate(self, batch: Batch) -> Evaluation:
        """Score a batch with the adapter as it stands; the loss leaves the pruning penalty out.

        Raises:
            DataError: as in `train_step`.
        """
        manifest = self._bundle.manifest
        feeds = labelled_feeds(manifest, batch)
        logits = self._inference.logits_of(batch, self._host.numbers.fed())
        loss = mean_loss(logits, feeds[LABELS])
        return Evaluation(loss=loss, logits=None if manifest.generates else logits)

    def adapter(self) -> Adapter:
        """A copy of the adapter as it stands."""
        return self._host.numbers.adapter()

    def cores(self) -> dict[str, Tensor]:
        """A copy of the cores as they stand, (rank, rank) by module name; none where factors are trained."""
        return self._host.numbers.cores()

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the last training step by PEFT or core key, of what is trained, float32."""
        return self._host.gradients()

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
            _check_ranks(adapter, parametrisation)
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

    def logits_of(self, batch: Batch, factors: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """The same under factors as the program takes them, by PEFT key in its order."""
        feeds = input_feeds(self._manifest, batch)
        inputs = [feeds[tensor.name] for tensor in self._manifest.inputs]
        answers = [
            self._program.run([*(array[part] for array in inputs), *factors.values()])[0]
            for part in _parts(len(inputs[0]), self._program.most_rows)
        ]
        return np.concatenate(answers)


def _check_ranks(adapter: Adapter, how: Parametrisation) -> None:
    most = adapter.spec.max_rank
    for name, frozen in (how.frozen or {}).items():
        rank = adapter.factors[name].rank if name in adapter.factors else 0
        if rank + frozen.rank > most:
            raise RankOutOfRange(
                f"ranks of {name} pass what ExecuTorch's programs were compiled for",
                got=f"{rank}, and {frozen.rank} frozen",
                expected=f"up to {most} together",
            )


def _parts(rows: int, most: int) -> list[slice]:
    return [slice(start, start + most) for start in range(0, rows, most)]


def _shares(labels: NDArray[np.int64], parts: Sequence[slice]) -> list[float]:
    """What part of the whole batch's mean each part makes up; where no label counts, they are alike.

    They sum to 1, so that the penalty, which is in the loss of each part, counts once.
    """
    counting = labels[:, 1:] != IGNORED_LABEL if labels.ndim == 2 else np.ones(labels.shape, bool)
    counts = [int(counting[part].sum()) for part in parts]
    return [count / sum(counts) if any(counts) else 1 / len(parts) for count in counts]


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
