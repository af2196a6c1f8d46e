"""One training assignment, from the offer to the receipt."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from edge_sdk.adapters.adapters import WholeAdapter
from edge_sdk.batching.batches import batching_of, draw_batches
from edge_sdk.events import RankPruned, Resumed, StepDone, Submitted, Uploaded
from edge_sdk.probe.peak_memory import peak_memory_bytes
from edge_sdk.runtimes import runtime_for
from edge_sdk.session.assignment import Assignment, Ready, Taken
from edge_sdk.session.assignment_store import Terms
from edge_sdk.session.choosing import rows_as_agreed
from edge_sdk.session.held_out import SCORING_SHARE, HeldOutScores
from edge_sdk.session.plans import Received
from edge_sdk.session.resuming import Checkpoints, counted_start, resumed
from edge_sdk.session.run_tensors import kept_errors
from edge_sdk.session.updates import Update
from edge_sdk.session.visit import NOT_ALLOWED_SECONDS, Visit, outcome_of
from edge_sdk.training.error_feedback import contract_with_feedback
from edge_sdk.training.local import TrainingResult, train_locally
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.private_factors import private_factors_to_bytes
from edge_sdk.training.pruning import self_prune
from hetlora.adapter import Adapter, Tensor
from hetlora.digest import sha256_of
from hetlora.errors import Stopped, UnavailableError
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Report, TrainingSettings
from hetlora.partial import contract
from hetlora.sent_parts import sends_whole_ranks
from hetlora.stored_tensors import tensors_to_bytes

logger = logging.getLogger(__name__)


class TrainingAssignment(Assignment):
    """Takes an offer, trains, and delivers; used once."""

    _not_kept: bytes | None = None  # private factors of an update that could not be stored

    def _work(self) -> Visit:
        store = self._with.assignments
        store.offered(self._offer)
        return self._deliver(store.update() or self._make_update())

    def _make_update(self) -> Update:
        taken = self._begin_or_resume()
        with counted_start(self._with.assignments):
            return self._trained(taken)

    def _trained(self, taken: Taken) -> Update:
        plan = taken.plan
        scores = self._scores(taken)
        result = self._train(taken, scores)
        self._keep_adapters(taken, result)
        adapter = self._pruned(taken, result.adapter)
        tensors, errors = self._contracted(adapter, taken, result.cores)
        report = Report(
            update=ObjectRef(sha256=sha256_of(tensors), size_bytes=len(tensors)),
            rank=adapter.rank,
            example_count=taken.terms.example_count,
            steps=result.steps,
            first_loss=result.first_loss,
            last_loss=result.last_loss,
            training_seconds=result.seconds,
            peak_memory_bytes=peak_memory_bytes(),
            downloaded_bytes=taken.terms.downloaded_bytes,
            **scores.told(),
        )
        update = Update(tensors, report, errors)
        self._keep(update, private_factors_to_bytes(adapter) if plan.adaptation.private_lora_B else None)
        return update

    def _keep(self, update: Update, private_factors: bytes | None) -> None:
        """Store what is to be delivered; on a full disk it is delivered all the same, out of memory."""
        try:
            self._with.assignments.trained(update, private_factors)
        except UnavailableError as error:
            logger.warning("assignment=%s event=update_not_kept error=%s", self._offer.assignment_id, error)
            self._not_kept = private_factors

    def _begin_or_resume(self) -> Taken:
        store = self._with.assignments
        agreed = store.agreed()
        if agreed is not None:
            return self._resume(*agreed)
        store.begin_anew()
        ready, terms, received = self._agree(self._with.examples)
        store.taken(terms, received)
        return self._taken(ready, terms, received)

    def _resume(self, terms: Terms, received: Received) -> Taken:
        """Go on as agreed, in smaller parts of a batch where there is less memory than there was."""
        offer, tools = self._offer, self._with
        self._check(tools.examples)
        bundle = terms.variant or offer.bundle
        manifest = tools.bundles.manifest(bundle)
        ready = Ready(bundle, manifest, tools.runtime or runtime_for(manifest), tools.examples)
        tools.bundles.make_room(bundle)
        rows = rows_as_agreed(offer, terms, bundle, manifest, ready.runtime, tools.examples, tools)
        return self._taken(ready, terms.model_copy(update={"micro_batch": rows}), received)

    def _scores(self, taken: Taken) -> HeldOutScores:
        tools, offer = self._with, self._offer
        return HeldOutScores(
            tools.held_out if offer.training.evaluate else None,
            taken.bundle,
            taken.terms.training,
            longest_tokens=taken.terms.longest_tokens,
            seed=taken.plan.seed,
            max_seconds=SCORING_SHARE * self._seconds_left,
            may_go_on=tools.watch.check,
            on_event=tools.on_event,
        )

    def _train(self, taken: Taken, scores: HeldOutScores) -> TrainingResult:
        tools, settings = self._with, taken.terms.training
        trainer = self._open_trainer(taken)
        # Before a checkpoint is taken up: what is scored is the model as the round began with it.
        scores.score_before(trainer, tools.assignments.first_score())
        seconds_before = resumed(trainer, tools.assignments)
        if trainer.steps_done:
            tools.on_event(Resumed(trainer.steps_done))

        def on_step(step: int, loss: float) -> None:
            tools.on_event(StepDone(step, settings.steps, loss))
            if step < settings.steps:
                tools.watch.check()

        batching = batching_of(taken.bundle, settings, longest_tokens=taken.terms.longest_tokens)
        batches = draw_batches(
            batching.read(tools.examples),
            batching,
            rng=np.random.default_rng(taken.plan.seed),
            skip=trainer.steps_done,
        )
        checkpoints = Checkpoints(trainer, tools.assignments, settings.steps, scores.first)
        try:
            result = train_locally(
                trainer,
                batches,
                settings,
                max_seconds=self._seconds_left - scores.seconds_to_keep,
                on_step=on_step,
                seconds_before=seconds_before,
                keep=checkpoints.keep,
            )
            scores.score_after(trainer)
        except Stopped:
            checkpoints.keep_now()
            raise
        return result

    def _keep_adapters(self, taken: Taken, result: TrainingResult) -> None:
        """What the model stood under before and after training: not pruned, which is for the fleet's sake."""
        how = taken.assigned.how
        trained = Parametrisation(how.adaptation, how.frozen, result.cores)
        self._with.adapters.keep_round(
            self._offer,
            WholeAdapter(taken.begun, how),
            WholeAdapter(result.adapter, trained),
            training=_as_planned(taken.terms),
            micro_batch=taken.terms.micro_batch,
            variant=taken.terms.variant,
        )

    def _pruned(self, taken: Taken, trained: Adapter) -> Adapter:
        if not sends_whole_ranks(taken.plan.adaptation):
            return trained  # a change has the ranks of what it changes
        settings = self._offer.training
        adapter = self_prune(
            taken.begun,
            trained,
            pruning_decay=settings.pruning_decay,
            min_rank=self._offer.min_rank,
            prune_by=settings.prune_by,
            untrained=taken.bundle.manifest.untrained,
        )
        if adapter.rank < trained.rank:
            self._with.on_event(RankPruned(trained.rank, adapter.rank))
        return adapter

    def _contracted(self, adapter: Adapter, taken: Taken, cores: Mapping[str, Tensor]) -> tuple[bytes, bytes]:
        """What is sent, and what rounding leaves out of it."""
        adaptation, received = taken.plan.adaptation, taken.assigned.received
        if not adaptation.error_feedback:
            return contract(adapter, adaptation, received, cores), b""
        before = kept_errors(self._with.database, self._offer.run_id, adapter.spec)
        data, after = contract_with_feedback(adapter, adaptation, received, before)
        return data, tensors_to_bytes(after)

    def _deliver(self, update: Update) -> Visit:
        tools, assignment_id = self._with, self._offer.assignment_id
        tools.watch.check_stop()
        if (kept_back := self._kept_back()) is not None:
            return kept_back
        tools.uploads.deliver(assignment_id, update.tensors, tools.watch.check_stop)
        tools.on_event(Uploaded(len(update.tensors)))
        receipt = tools.service.submit(assignment_id, update.report)
        # Nothing was sent, as it were, where the service had no more use for it.
        is_accepted = outcome_of(receipt.state) == "accepted"
        if is_accepted:
            self._accepted()
        self._note_delivered(update.errors if is_accepted else b"")
        tools.downloads.drop_leftovers()
        tools.on_event(Submitted(update.report, receipt))
        tools.adopter.settle(tools.watch.check)
        logger.info("assignment=%s state=%s reason=%s", assignment_id, receipt.state, receipt.reason)
        return Visit(
            outcome_of(receipt.state),
            receipt.reason,
            receipt.retry_after_seconds,
            offer=self._offer,
            choice=self._choice,
            report=update.report,
        )

    def _kept_back(self) -> Visit | None:
        """Where sending costs somebody, the update waits for a later visit."""
        if (reason := self._with.watch.metered()) is None:
            return None
        return Visit("not_allowed", reason, NOT_ALLOWED_SECONDS, offer=self._offer, choice=self._choice)

    def _accepted(self) -> None:
        """The service has taken the update, and it is still stored."""

    def _note_delivered(self, errors: bytes) -> None:
        """On a full disk an update that is stored stays so: before the next assignment it is asked about."""
        try:
            self._with.assignments.delivered(errors, self._not_kept)
        except UnavailableError as error:
            logger.warning(
                "assignment=%s event=delivery_not_noted error=%s", self._offer.assignment_id, error
            )


def _as_planned(terms: Terms) -> TrainingSettings:
    """What is held out may be longer than what was trained on, which is what memory was planned for."""
    longest = min(terms.training.max_tokens, terms.longest_tokens)
    return terms.training.model_copy(update={"max_tokens": longest})
