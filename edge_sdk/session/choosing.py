"""How an offer is taken: with which of its bundles, and at which rank.

And how work that was cut off goes on: as it was agreed, where the memory is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge_sdk.examples import ExampleStore
from edge_sdk.planning.forecast import UNCORRECTED
from edge_sdk.planning.planner import RankChoice
from edge_sdk.planning.preference import is_unsurpassed, preferred
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.session.assignment_store import Terms
from edge_sdk.session.candidate import Candidate, known_correction, planner_of
from edge_sdk.session.equipment import Equipment
from hetlora.errors import (
    BundleError,
    DependencyMissing,
    DeviceTooSmall,
    HetloraError,
    RankOutOfRange,
    RefusedError,
    WireError,
)
from hetlora.manifest import Manifest
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Offer
from hetlora.variants import check_variant

logger = logging.getLogger(__name__)

# Why a device cannot use a bundle, where it may use another one.
_UNFIT: Final = (DeviceTooSmall, RankOutOfRange, BundleError, DependencyMissing)


class Choosing:
    """The search for the bundle and the rank at which this device takes an offer; used once.

    The best candidate has its turn: if nothing is left to find out it is taken, or else fetched and tried,
    after which it may be the best still. Manifests are read only as long as another could be better.
    """

    def __init__(
        self,
        offer: Offer,
        examples: ExampleStore,
        tools: Equipment,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offer, self._examples, self._with, self._timer = offer, examples, tools, timer
        self._unread = [offer.bundle, *offer.variants]
        self._candidates: list[Candidate] = []
        self._refusals: dict[str, HetloraError] = {}

    def result(self) -> tuple[Candidate, RankChoice]:
        """The bundle to take and how, with room for it on the disk.

        Raises:
            DeviceTooSmall, RankOutOfRange, BundleError, DependencyMissing: it can be none; what is wrong with
                the run's own, see `Candidate` and `BundleCache.make_room`.
            ConditionsUnmet: a condition was lost during a trial.
        """
        while self._unread or self._candidates:
            best = self._best()
            if best is None or self._reads_on(best):
                self._read(self._unread.pop(0))
                continue
            try:
                self._with.bundles.make_room(best.bundle)
                if best.is_settled and best.choice is not None:
                    return best, best.choice
                self._try_out(best)
            except self._passed_over(best.bundle) as error:
                self._candidates.remove(best)
                self._refuse(best.bundle, error)
        raise self._refusals[self._offer.bundle.sha256]

    def _best(self) -> Candidate | None:
        """Those that only a trial could show to fit come after all others."""
        plans = [(candidate.manifest, candidate.choice) for candidate in self._candidates]
        place = preferred(plans, self._offer.training.max_tokens)
        return self._candidates[place or 0] if self._candidates else None

    def _reads_on(self, best: Candidate) -> bool:
        if not self._unread:
            return False
        return best.choice is None or not is_unsurpassed(best.manifest, best.choice, self._offer)

    def _read(self, bundle: ObjectRef) -> None:
        manifests = self._with.bundles
        try:
            manifest = manifests.manifest(bundle)
            if bundle != self._offer.bundle:
                check_variant(manifests.manifest(self._offer.bundle), manifest)
            candidate = Candidate(bundle, manifest, self._offer, self._examples, self._with)
        except self._passed_over(bundle) as error:
            self._refuse(bundle, error)
        else:
            self._candidates.append(candidate)

    def _try_out(self, best: Candidate) -> None:
        if self._with.bundles.missing_bytes(best.bundle):
            self._fetch(best.bundle)
            best.look_again(self._offer)
        best.try_out()

    def _fetch(self, bundle: ObjectRef) -> None:
        """After that, which may be hours later, less is left of the offer's time."""
        started = self._timer()
        self._with.bundles.bundle(bundle)
        seconds = self._offer.round_seconds - (self._timer() - started)
        self._offer = self._offer.model_copy(update={"round_seconds": seconds})
        for other in [candidate for candidate in self._candidates if candidate.bundle != bundle]:
            try:
                other.look_again(self._offer)
            except _UNFIT as error:
                self._candidates.remove(other)
                self._refuse(other.bundle, error)

    def _passed_over(self, bundle: ObjectRef) -> tuple[type[HetloraError], ...]:
        """What of a bundle leaves the search to the others; of a variant also that it cannot be had."""
        return _UNFIT if bundle == self._offer.bundle else (*_UNFIT, WireError, RefusedError)

    def _refuse(self, bundle: ObjectRef, error: HetloraError) -> None:
        if isinstance(error, BundleError):  # the service's fault, or bytes that rotted on this disk
            self._with.bundles.doubt(bundle)
        self._refusals[bundle.sha256] = error
        logger.info("bundle=%s event=unfit code=%s reason=%s", bundle.sha256[:12], error.code, error)


def rows_as_agreed(
    offer: Offer,
    terms: Terms,
    bundle: ObjectRef,
    manifest: Manifest,
    runtime: RuntimeFactory,
    examples: ExampleStore,
    tools: Equipment,
) -> int:
    """How many rows at a time go on with what was agreed, in the memory of now; no more than were.

    Nothing is chosen, tried or read anew, but for the memory. A correction that is no longer believed is left
    out.

    Raises:
        DeviceTooSmall, BundleInvalid: see `Planner.rows_for`.
    """
    planner = planner_of(offer, bundle, manifest, examples, tools)
    if planner.capabilities.source != "given":
        known = known_correction(planner, bundle, runtime, tools)
        planner = replace(planner, correction=known or UNCORRECTED)
    return min(terms.micro_batch, planner.rows_for(terms.rank, terms.longest_tokens))
