"""One assignment, from the offer to the receipt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_sdk.batches import check_examples, draw_batches
from edge_sdk.bundles import BundleCache
from edge_sdk.collation import collate_for
from edge_sdk.downloads import Downloads
from edge_sdk.events import Event, GivenBack, RankChosen, RankPruned, StepDone, Submitted, Uploaded
from edge_sdk.examples import ExampleStore
from edge_sdk.folder import DeviceFolder
from edge_sdk.memory import peak_memory_bytes
from edge_sdk.parametrisation import Parametrisation
from edge_sdk.planner import RankChoice, choose_rank
from edge_sdk.plans import Assigned, fetch_assigned
from edge_sdk.private_factors import keep_private_factors, with_private_factors
from edge_sdk.pruning import self_prune
from edge_sdk.runtimes import runtime_for
from edge_sdk.runtimes.base import Batch, RuntimeFactory
from edge_sdk.service import DeviceService
from edge_sdk.tokens import text_encoder
from edge_sdk.training import TrainingResult, train_locally
from edge_sdk.updates import Update, drop_updates, keep_update, kept_update
from edge_sdk.uploads import Uploads
from edge_sdk.visit import Visit, failure_of, outcome_of
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.digest import sha256_of
from hetlora.errors import ClockSkew, HetloraError, ServiceFailed, ServiceUnreachable, TooManyRequests
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import (
    Adaptation,
    CapabilityReport,
    Failure,
    Offer,
    Receipt,
    Report,
    StartRequest,
)
from hetlora.partial import contract, sends_whole_ranks

logger = logging.getLogger(__name__)

# The service is away, ill or busy, or this device's clock is wrong: what was done is kept for a later visit.
AWAY: Final = (ServiceUnreachable, ServiceFailed, TooManyRequests, ClockSkew)
# After a failure that the service could not be told, so that it named no time: longer than the few seconds
# that it names by default, as what failed here would at once fail again.
DEFAULT_RETRY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a session works with."""

    service: DeviceService
    downloads: Downloads
    uploads: Uploads
    bundles: BundleCache
    folder: DeviceFolder
    examples: ExampleStore
    capabilities: CapabilityReport
    runtime: RuntimeFactory | None  # None: what `runtime_for` finds
    threads: int | None
    on_event: Callable[[Event], None]


class Session:
    """Takes an offer, trains, and delivers; used once."""

    def __init__(self, offer: Offer, equipment: Equipment) -> None:
        self._offer = offer
        self._with = equipment
        self._choice: RankChoice | None = None

    def run(self) -> Visit:
        """Carry the assignment to its end; whatever stops training gives it back to the service.

        Raises:
            ServiceUnreachable, ServiceFailed, ClockSkew: the assignment stays this device's; what was
                downloaded and trained lies on disk, and a later visit goes on from there.
        """
        try:
            update = kept_update(self._with.folder.updates, self._offer.assignment_id) or self._make_update()
            return self._deliver(update)
        except AWAY:
            raise
        except Exception as error:
            return self._give_back(error)

    def _make_update(self) -> Update:
        offer, tools = self._offer, self._with
        received_before = tools.downloads.received_bytes
        manifest = tools.bundles.manifest(offer.bundle)
        check_examples(tools.examples, manifest.task, manifest.labels)
        runtime = tools.runtime or runtime_for(manifest)
        example_count = tools.examples.count()
        self._choice = choose_rank(
            tools.capabilities, manifest, offer, example_count=example_count, threads=tools.threads
        )
        tools.on_event(RankChosen(self._choice))
        plan = tools.service.start(offer.assignment_id, StartRequest(rank=self._choice.rank))
        bundle = tools.bundles.bundle(offer.bundle)
        assigned = fetch_assigned(
            plan,
            manifest.adapter,
            rank=self._offer.trained_rank or self._choice.rank,
            downloads=tools.downloads,
            folder=tools.folder.downloads,
        )
        begun = self._begun(assigned)
        result = self._train(runtime, bundle, begun, assigned.how, plan.seed)
        adapter = self._pruned(begun, result.adapter, plan.adaptation)
        if plan.adaptation.private_lora_B:
            keep_private_factors(tools.folder.private_factors, offer.run_id, adapter)
        tensors = contract(adapter, plan.adaptation, assigned.received, result.cores)
        report = Report(
            update=ObjectRef(sha256=sha256_of(tensors), size_bytes=len(tensors)),
            rank=adapter.rank,
            example_count=example_count,
            steps=result.steps,
            first_loss=result.first_loss,
            last_loss=result.last_loss,
            training_seconds=result.seconds,
            peak_memory_bytes=peak_memory_bytes(),
            downloaded_bytes=tools.downloads.received_bytes - received_before,
        )
        update = Update(tensors, report)
        keep_update(tools.folder.updates, offer.assignment_id, update)
        return update

    def _train(
        self, runtime: RuntimeFactory, bundle: Bundle, begun: Adapter, how: Parametrisation, seed: int
    ) -> TrainingResult:
        tools, settings = self._with, self._offer.training
        opened = runtime(
            bundle,
            begun,
            pruning_decay=settings.pruning_decay,
            pruning_penalty=settings.pruning_penalty,
            threads=tools.threads,
            parametrisation=how,
        )
        return train_locally(
            opened,
            self._batches(bundle, seed),
            settings,
            max_seconds=self._offer.round_seconds,
            on_step=lambda step, loss: tools.on_event(StepDone(step, settings.steps, loss)),
        )

    def _batches(self, bundle: Bundle, seed: int) -> Iterator[Batch]:
        manifest, settings = bundle.manifest, self._offer.training
        encoder = text_encoder(bundle, max_tokens=settings.max_tokens)
        rows = encoder.sizes.rows or settings.batch_size
        return draw_batches(
            self._with.examples,
            collate_for(manifest.task, manifest.labels, encoder),
            batch_size=min(rows, settings.batch_size) if manifest.generates else rows,
            always_full=encoder.sizes.rows is not None and not manifest.generates,
            rng=np.random.default_rng(seed),
        )

    def _begun(self, assigned: Assigned) -> Adapter:
        if not assigned.how.adaptation.private_lora_B:
            return assigned.received
        return with_private_factors(self._with.folder.private_factors, self._offer.run_id, assigned.received)

    def _pruned(self, begun: Adapter, trained: Adapter, adaptation: Adaptation) -> Adapter:
        if not sends_whole_ranks(adaptation):
            return trained  # a change has the ranks of what it changes
        settings = self._offer.training
        adapter = self_prune(
            begun,
            trained,
            pruning_decay=settings.pruning_decay,
            min_rank=self._offer.min_rank,
            prune_by=settings.prune_by,
        )
        if adapter.rank < trained.rank:
            self._with.on_event(RankPruned(trained.rank, adapter.rank))
        return adapter

    def _deliver(self, update: Update) -> Visit:
        tools, assignment_id = self._with, self._offer.assignment_id
        tools.uploads.deliver(assignment_id, update.tensors)
        tools.on_event(Uploaded(len(update.tensors)))
        receipt = tools.service.submit(assignment_id, update.report)
        drop_updates(tools.folder.updates)
        tools.downloads.drop_leftovers()
        tools.on_event(Submitted(update.report, receipt))
        logger.info("assignment=%s state=%s reason=%s", assignment_id, receipt.state, receipt.reason)
        return Visit(
            outcome_of(receipt.state),
            receipt.reason,
            receipt.retry_after_seconds,
            offer=self._offer,
            choice=self._choice,
            report=update.report,
        )

    def _give_back(self, error: Exception) -> Visit:
        failure = failure_of(error)
        log = logger.warning if isinstance(error, HetloraError) else logger.exception
        log("assignment=%s code=%s message=%s", self._offer.assignment_id, failure.code, failure.message)
        drop_updates(self._with.folder.updates)
        receipt = self._tell(failure)
        # The service may have ended the assignment before: it took the update and only then something here
        # failed, its goal was met without us, or the lease ran out.
        outcome = "failed" if receipt is None else outcome_of(receipt.state)
        if outcome == "failed":
            self._with.on_event(GivenBack(failure.code, failure.message))
        return Visit(
            outcome,
            str(error) if receipt is None or outcome == "failed" else receipt.reason,
            DEFAULT_RETRY_SECONDS if receipt is None else receipt.retry_after_seconds,
            offer=self._offer,
            choice=self._choice,
            code=failure.code,
            error=error,
        )

    def _tell(self, failure: Failure) -> Receipt | None:
        try:
            return self._with.service.fail(self._offer.assignment_id, failure)
        except HetloraError as error:  # the lease will end what could not be given back
            logger.warning("assignment=%s event=not_given_back error=%s", self._offer.assignment_id, error)
            return None
