"""One adapter being trained: runtimes give gradients, and every step is taken here."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation, RuntimeFactory, TrainingRuntime
from edge_sdk.runtimes.factors import check_adapter
from edge_sdk.training.divergence import Divergence
from edge_sdk.training.flat_tensors import FlatTensors
from edge_sdk.training.gradient_terms import add_proximal, clip_norm
from edge_sdk.training.micro_batches import micro_batches
from edge_sdk.training.optimizers import optimizer_for
from edge_sdk.training.parametrisation import Parametrisation, TrainedNumbers
from edge_sdk.training.penalty import TailPenalty
from edge_sdk.training.schedule import learning_rate_at
from edge_sdk.training.trainer_state import Arrays, places, put_back
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.errors import RankOutOfRange, SettingsError, SpecMismatch, TrainingDiverged
from hetlora.fixed_sizes import fixed_sizes
from hetlora.manifest import Manifest
from hetlora.messages.device import TrainingSettings

_COUNTS: Final = "counts"  # steps done, and how many losses were high running
_LOSSES: Final = "losses"  # of the first step and of the last


class Trainer:
    """An adapter under a `Parametrisation`, stepped by the optimizer of its run.

    A batch goes through the runtime in parts of at most `micro_batch` rows, or of as many as it takes; graphs
    that are stamped for a number of rows take that. HetLoRA's penalty acts on the adapter's own ranks alone,
    frozen ones and amplification left out; cores have no ranks to prune and none. FedProx's term holds what
    is trained to what it was when the trainer was made.

    Attributes:
        steps_done: how many steps were taken, also before a `restore`.
        first_loss, last_loss: of the first and the last of them; NaN before any.

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
        self.first_loss = self.last_loss = math.nan
        self._runtime, self._manifest, self._settings = runtime, manifest, settings
        self._divergence = Divergence(settings)
        self._most_rows = _most_rows(manifest, runtime, micro_batch)
        self._numbers = TrainedNumbers(adapter, how)
        self._begun = self._numbers.flat.numbers.copy() if settings.proximal else None
        # Zeros that nobody has touched take no memory: what only evaluates has none of these.
        self._gradients = FlatTensors(self._numbers.flat.shapes)
        self._penalty = (
            TailPenalty(
                {name: self._numbers.factors[name] for name in manifest.trained},
                self._gradients.tensors,
                settings.pruning_decay,
            )
            if settings.pruning_penalty and how.adaptation.trained != "core"
            else None
        )
        self._optimizer = optimizer_for(settings, manifest.optimizer, self._numbers.flat.shapes)

    def step(self, batch: Batch) -> float:
        """Take one step over the whole of a batch and return the loss before it, with all penalties.

        `batch` holds the manifest's inputs and `labels`, as `edge_sdk.runtimes.feeds.labelled_feeds` has
        them.

        Raises:
            DataError: an input is missing, has the wrong shape, or holds numbers outside its range.
            TrainingDiverged: the loss says that training leads nowhere; the adapter is left as it was.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # the loss tells, or the adapter
            loss = self._differentiate(batch) + self._punish() + self._hold()
            if self.steps_done == 0:
                self.first_loss = loss
            self._divergence.check(loss, self.first_loss, number=self.steps_done + 1)
            self._clip()
            self.steps_done, self.last_loss = self.steps_done + 1, loss
            rate = learning_rate_at(self._settings, self.steps_done)
            rates = [(part, rate * share) for part, share in self._numbers.rates]
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

    def state_in_place(self) -> dict[str, NDArray[Any]]:
        """All that `restore` needs to go on as if training had never stopped, good until the next step.

        It is told of where it lies: a copy would be of up to three adapters.
        """
        return {**places(self._kept), **self._progress()}

    def restore(self, state: Arrays) -> None:
        """Go on from what `state_in_place` gave, of this adapter and of no other; nothing in it is trusted.

        Raises:
            SpecMismatch: tensors are missing, are too many, or have other shapes or dtypes, or a count is
                below 0; nothing has changed then.
        """
        if _COUNTS in state and (state[_COUNTS] < 0).any():
            raise SpecMismatch("counts of what training is to go on from", got=state[_COUNTS].tolist())
        progress = self._progress()
        put_back(state, {**places(self._kept), **progress})
        self.steps_done, self._divergence.high_steps = progress[_COUNTS].tolist()
        self.first_loss, self.last_loss = progress[_LOSSES].tolist()

    @property
    def _kept(self) -> dict[str, FlatTensors]:
        return {"trained": self._numbers.flat, **self._optimizer.moments}

    def _progress(self) -> dict[str, NDArray[Any]]:
        return {
            _COUNTS: np.array([self.steps_done, self._divergence.high_steps], np.int64),
            _LOSSES: np.array([self.first_loss, self.last_loss], np.float64),
        }

    def _differentiate(self, batch: Batch) -> float:
        """The loss of a batch without the penalty; its gradients are then in `_gradients`."""
        factors, loss = self._numbers.fed(), 0.0
        parts = micro_batches(self._manifest, batch, self._most_rows)
        for place, (part, share) in enumerate(parts):
            part_loss, gradients = self._runtime.gradients(part, factors)
            loss += share * part_loss
            for key, own in self._numbers.pulled_back(gradients).items():
                if place == 0:
                    np.multiply(own, np.float32(share), out=self._gradients.tensors[key])
                else:
                    self._gradients.tensors[key] += np.float32(share) * own
        return loss

    def _punish(self) -> float:
        """HetLoRA's penalty; its gradients are added to those that are there."""
        return 0.0 if self._penalty is None else self._penalty.add(self._settings.pruning_penalty)

    def _hold(self) -> float:
        """FedProx's term; its gradients are added to those that are there."""
        if self._begun is None:
            return 0.0
        return add_proximal(
            self._gradients.numbers, self._numbers.flat.numbers, self._begun, self._settings.proximal
        )

    def _clip(self) -> None:
        if self._settings.max_gradient_norm is None:
            return
        norm = clip_norm(self._gradients.numbers, self._settings.max_gradient_norm)
        if not math.isfinite(norm):
            raise TrainingDiverged("norm of the gradients", got=norm, expected="a finite number")


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
    check_adapter(manifest.adapter, adapter)
    if adapter.rank < 1:
        raise RankOutOfRange("nothing to train at rank 0", expected="a module of rank 1 or more")


def _most_rows(manifest: Manifest, runtime: TrainingRuntime, micro_batch: int | None) -> int | None:
    if micro_batch is not None and micro_batch < 1:
        raise SettingsError("rows of a micro-batch", got=micro_batch, expected="1 or more")
    limits = [runtime.most_rows] if fixed_sizes(manifest).rows else [runtime.most_rows, micro_batch]
    return min((limit for limit in limits if limit is not None), default=None)
