"""What training and evaluating share: an offer is taken at a rank and carried to its end, or given back."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass

from edge_sdk.batching.batches import check_examples
from edge_sdk.events import GivenBack, RankChosen
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.planner import RankChoice
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.session.assignment_store import Terms
from edge_sdk.session.choosing import Choosing
from edge_sdk.session.equipment import Equipment
from edge_sdk.session.plans import Assigned, Received, fetch_received, read_assigned
from edge_sdk.session.run_tensors import with_kept_factors
from edge_sdk.session.visit import DEFAULT_RETRY_SECONDS, Visit, failure_of, outcome_of, places_of
from edge_sdk.training.trainer import Trainer, open_trainer
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.errors import (
    BundleError,
    HetloraError,
    ServiceAway,
    Stopped,
    UnavailableError,
)
from hetlora.manifest import Manifest
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Failure, Offer, Plan, Receipt, StartRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A device that may work on an offer now with a bundle, and has what that is to be learned from."""

    bundle: ObjectRef
    manifest: Manifest
    runtime: RuntimeFactory
    examples: ExampleStore


@dataclass(frozen=True, slots=True)
class Taken:
    """What an offer comes to once it is taken: `begun` is the adapter that the model stands under."""

    terms: Terms
    bundle: Bundle
    runtime: RuntimeFactory
    assigned: Assigned
    begun: Adapter

    @property
    def plan(self) -> Plan:
        """What the service wants to be done."""
        return self.terms.plan


class Assignment(ABC):
    """An offer that is worked on; used once."""

    def __init__(self, offer: Offer, equipment: Equipment) -> None:
        self._offer = offer
        self._with = equipment
        self._choice: RankChoice | None = None
        self._received_before = equipment.downloads.received_bytes
        self._came_at = time.monotonic()

    def run(self) -> Visit:
        """Carry the assignment to its end; whatever stops it gives it back to the service.

        Raises:
            ServiceAway, Stopped: the assignment stays this device's; what was downloaded and trained lies on
                disk, and a later visit goes on from there.
        """
        tools = self._with
        try:
            with tools.downloads.only_while(tools.watch.check):
                return self._work()
        except (ServiceAway, Stopped):
            raise
        except Exception as error:
            return self._give_back(error)

    @property
    def _seconds_left(self) -> float:
        """Of the time that the offer gives, which began when it came: a model may have been fetched since."""
        return max(self._offer.round_seconds - (time.monotonic() - self._came_at), 0.0)

    @abstractmethod
    def _work(self) -> Visit:
        """The whole of the assignment."""

    def _take(self, examples: ExampleStore) -> Taken:
        """Choose bundle and rank, take the offer at it, and fetch what it needs to work on these examples."""
        return self._taken(*self._agree(examples))

    def _check(self, examples: ExampleStore) -> None:
        """Look whether this device may do the work now, and has examples for it."""
        self._with.watch.check()
        manifest = self._with.bundles.manifest(self._offer.bundle)
        check_examples(examples, manifest.task, manifest.labels)

    def _agree(self, examples: ExampleStore) -> tuple[Ready, Terms, Received]:
        """Choose bundle and rank, take the offer at it, and fetch bundle and adapter."""
        offer, tools = self._offer, self._with
        self._check(examples)
        example_count = examples.count()
        taken, choice = Choosing(offer, examples, tools).result()
        ready = Ready(taken.bundle, taken.manifest, taken.runtime, examples)
        self._choice = choice
        variant = None if taken.bundle == offer.bundle else taken.bundle
        digest = None if variant is None else variant.sha256
        tools.on_event(RankChosen(choice, digest))
        request = StartRequest(rank=choice.rank, variant=digest)
        plan = tools.service.start(offer.assignment_id, request, offer.kind)
        tools.bundles.bundle(ready.bundle)
        received = fetch_received(
            plan, ready.manifest.adapter, downloads=tools.downloads, folder=tools.folder.downloads
        )
        terms = Terms(
            plan=plan,
            variant=variant,
            rank=choice.rank,
            training=offer.training.model_copy(update={"max_tokens": choice.max_tokens}),
            micro_batch=choice.micro_batch,
            longest_tokens=choice.step.tokens,
            example_count=example_count,
            downloaded_bytes=tools.downloads.received_bytes - self._received_before,
        )
        return ready, terms, received

    def _taken(self, ready: Ready, terms: Terms, received: Received) -> Taken:
        rank = self._offer.trained_rank or terms.rank
        assigned = read_assigned(terms.plan, received, ready.manifest.adapter, rank=rank)
        bundle = self._with.bundles.bundle(ready.bundle)
        return Taken(terms, bundle, ready.runtime, assigned, self._begun(assigned))

    def _open_trainer(self, taken: Taken) -> Trainer:
        """The model as it was agreed to, under the adapter that the work begins with."""
        return open_trainer(
            taken.runtime,
            taken.bundle,
            taken.begun,
            taken.terms.training,
            threads=self._with.threads,
            parametrisation=taken.assigned.how,
            micro_batch=taken.terms.micro_batch,
        )

    def _begun(self, assigned: Assigned) -> Adapter:
        if not assigned.how.adaptation.private_lora_B:
            return assigned.received
        return with_kept_factors(self._with.database, self._offer.run_id, assigned.received)

    def _give_back(self, error: Exception) -> Visit:
        failure = failure_of(error)
        assignment_id = self._offer.assignment_id
        logger.warning("assignment=%s code=%s message=%s", assignment_id, failure.code, failure.message)
        if not isinstance(error, HetloraError):  # a fault of ours or of the app's: where, and not its words
            logger.error("assignment=%s raised_at=\n%s", assignment_id, places_of(error))
        if isinstance(error, BundleError):  # the service's fault, or bytes that rotted on this disk
            for bundle in (self._offer.bundle, *self._offer.variants):
                self._with.bundles.doubt(bundle)
        with suppress(UnavailableError):  # on a full disk; the next check-in makes up for it
            self._with.assignments.give_up_others(None)
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
            return self._with.service.fail(self._offer.assignment_id, failure, self._offer.kind)
        except HetloraError as error:  # the lease will end what could not be given back
            logger.warning("assignment=%s event=not_given_back error=%s", self._offer.assignment_id, error)
            return None
