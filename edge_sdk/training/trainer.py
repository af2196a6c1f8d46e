"""One adapter being trained: runtimes give gradients, and every step is taken here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.batching.sizes import fixed_sizes
from edge_sdk.runtimes.base import Batch, Evaluation, RuntimeFactory, TrainingRuntime
from edge_sdk.training.flat_tensors import FlatTensors
from edge_sdk.training.micro_batches import micro_batches
from edge_sdk.training.optimizers import optimizer_for
from edge_sdk.training.parametrisation import Parametrisation, TrainedNumbers
from edge_sdk.training.penalty import add_to_tail, tail_penalty
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.errors import RankOutOfRange, SettingsError, SpecMismatch
from hetlora.manifest import Manifest
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import check_keys

# What training can go on from, by key; safetensors take it as it is.
TrainerState = Mapping[str, NDArray[Any]]

_STEPS: Final = "steps"


class Trainer:
    """An adapter under a `Parametrisation`, stepped by the optimizer of its run.

    A batch goes through the runtime in parts of at most `micro_batch` rows, or of as many as it takes; graphs
    that are stamped for a number of rows take that. HetLoRA's penalty acts on the adapter's own ranks alone,
    frozen ones and amplification left out; cores have no ranks to prune and none.

    Raises:
        SpecMismatch: the adapter is not of the manifest's specification, or cores or frozen factors do not
            fit it.
        RankOutOfRange: every module has rank 0.
        SettingsError: `micro_batch` is below 1.
    """

    def __init__(
        self,
        runtime: TrainingRuntime,
        adapter: Adapter,
        manifest: Manifest,
        settings: TrainingSettings,
        parametrisation: Parametrisation | None = None,
        micro_batch: int | None = None,
    ) -> None:
        check_trainable(manifest, adapter)
        how = parametrisation or Parametrisation()
        self.steps_done = 0
        self._runtime, self._manifest, self._settings = runtime, manifest, settings
        self._most_rows = _most_rows(manifest, runtime, micro_batch)
        self._penalty = 0.0 if how.adaptation.trained == "core" else settings.pruning_penalty
        self._numbers = TrainedNumbers(adapter, how)
        # Zeros that nobody has touched take no memory: what only evaluates has none of these.
        self._gradients = FlatTensors(self._numbers.flat.shapes)
        self._optimizer = optimizer_for(settings, manifest.optimizer, self._numbers.flat.shapes)

    def step(self, batch: Batch) -> float:
        """Take one step over the whole of a batch and return the loss before it, pruning penalty included.

        `batch` holds the manifest's inputs and `labels`, as `edge_sdk.runtimes.feeds.labelled_feeds` has
        them. A loss that is not finite is returned too, and leaves the adapter as it was.

        Raises:
            DataError: an input is missing, has the wrong shape, or holds numbers outside its range.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # the loss tells, or the adapter
            loss = self._differentiate(batch) + self._punish()
            if math.isfinite(loss):
                self.steps_done += 1
                rates = [(part, rate * self._settings.learning_rate) for part, rate in self._numbers.rates]
                self._optimizer.step(
                    self._numbers.flat.numbers, self._gradients.numbers, rates, number=self.steps_done
                )
        return loss

    def evaluate(self, batch: Batch) -> Evaluation:
        """Score a batch with the adapter as it stands; the loss leaves the pruning penalty out.

        Raises:
            DataError: as in `step`.
        """
        factors = self._numbers.fed()
        loss, logits = 0.0, []
        for part, share in micro_batches(self._manifest, batch, self._most_rows):
            scored = self._runtime.evaluate(part, factors)
            loss += share * scored.loss
            logits.append(scored.logits)
        told = [own for own in logits if own is not None]
        return Evaluation(loss, np.concatenate(told) if told else None)

    def adapter(self) -> Adapter:
        """A copy of the adapter as it stands.

        Raises:
            NonFiniteValues: a factor holds NaN or infinity.
        """
        return self._numbers.adapter()

    def cores(self) -> dict[str, Tensor]:
        """A copy of the cores as they stand, (rank, rank) by module name; none where factors are trained.

        Raises:
            NonFiniteValues: one holds NaN or infinity.
        """
        return self._numbers.cores()

    def gradients(self) -> dict[str, Tensor]:
        """A copy of the last step's gradients, by PEFT or core key, of the numbers that are trained."""
        return self._gradients.copied()

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of all that `restore` needs to go on as if training had never stopped."""
        tensors = {
            f"{kind}/{key}": tensor
            for kind, flat in self._kept.items()
            for key, tensor in flat.copied().items()
        }
        return {**tensors, _STEPS: np.array([self.steps_done], np.int64)}

    def restore(self, state: TrainerState) -> None:
        """Go on from what `state` gave, of this adapter and of no other; nothing in it is trusted.

        Raises:
            SpecMismatch: tensors are missing, are too many, or have other shapes or dtypes; nothing has
                changed then.
        """
        places = {
            f"{kind}/{key}": tensor
            for kind, flat in self._kept.items()
            for key, tensor in flat.tensors.items()
        }
        wanted: dict[str, NDArray[Any]] = {**places, _STEPS: np.zeros(1, np.int64)}
        check_keys(state, wanted)
        for key, own in wanted.items():
            if (state[key].shape, state[key].dtype) != (own.shape, own.dtype):
                raise SpecMismatch(
                    f"{key} of what training is to go on from",
                    got=f"{state[key].dtype} {state[key].shape}",
                    expected=f"{own.dtype} {own.shape}",
                )
        for key, own in places.items():
            own[...] = state[key]
        self.steps_done = int(state[_STEPS][0])

    @property
    def _kept(self) -> dict[str, FlatTensors]:
        return {"trained": self._numbers.flat, **self._optimizer.moments}

    def _differentiate(self, batch: Batch) -> float:
        """The loss of a batch without the penalty; its gradients are then in `_gradients`."""
        factors, loss = self._numbers.fed(), 0.0
        parts = micro_batches(self._manifest, batch, self._most_rows)
        self._gradients.numbers.fill(0)
        for part, share in parts:
            part_loss, gradients = self._runtime.gradients(part, factors)
            loss += share * part_loss
            for key, own in self._numbers.pulled_back(gradients).items():
                self._gradients.tensors[key] += own if share == 1 else np.float32(share) * own
        return loss

    def _punish(self) -> float:
        """The penalty; its gradients are added to those that are there."""
        if self._penalty == 0:
            return 0.0
        value, slopes = tail_penalty(self._numbers.factors(), self._settings.pruning_decay)
        for key, gradient in self._gradients.tensors.items():
            add_to_tail(gradient, np.float32(self._penalty) * slopes[key])
        return self._penalty * value


def open_trainer(
    runtime: RuntimeFactory,
    bundle: Bundle,
    adapter: Adapter,
    settings: TrainingSettings,
    *,
    threads: int | None,
    parametrisation: Parametrisation | None = None,
    micro_batch: int | None = None,
) -> Trainer:
    """Open a bundle's graphs, and train or score an adapter over them.

    Raises:
        SpecMismatch, RankOutOfRange, SettingsError: see `Trainer`.
        HetloraError: what the runtime raises, where it cannot be opened.
    """
    check_trainable(bundle.manifest, adapter)  # or the runtime would be opened for who knows what
    ranks = (parametrisation or Parametrisation()).ranks(adapter)
    opened = runtime(bundle, ranks, threads=threads)
    return Trainer(opened, adapter, bundle.manifest, settings, parametrisation, micro_batch)


def check_trainable(manifest: Manifest, adapter: Adapter) -> None:
    """Raise unless the adapter is of the bundle's specification and trains some module.

    Raises:
        SpecMismatch: it is of another.
        RankOutOfRange: every module has rank 0.
    """
    if adapter.spec != manifest.adapter:
        raise SpecMismatch("the adapter is not of this bundle's specification")
    if adapter.rank < 1:
        raise RankOutOfRange("nothing to train at rank 0", expected="a module of rank 1 or more")


def _most_rows(manifest: Manifest, runtime: TrainingRuntime, micro_batch: int | None) -> int | None:
    if micro_batch is not None and micro_batch < 1:
        raise SettingsError("rows of a micro-batch", got=micro_batch, expected="1 or more")
    limits = [runtime.most_rows] if fixed_sizes(manifest).rows else [runtime.most_rows, micro_batch]
    return min((limit for limit in limits if limit is not None), default=None)
