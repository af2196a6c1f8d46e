"""One bundle of an offer on this device: planned, tried where it never ran here, and planned again."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from edge_sdk.batching.batches import Source, batching_of
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.calibration import correction_of, plan_trial, trial_forecast
from edge_sdk.planning.corrections import EVALUATION, circumstances_of
from edge_sdk.planning.forecast import UNCORRECTED, Correction
from edge_sdk.planning.planner import Planner, RankChoice
from edge_sdk.planning.trial import run_trial, steps_of
from edge_sdk.probe import ModelShape
from edge_sdk.runtimes import runtime_for
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.session.equipment import Equipment
from edge_sdk.units import MIB
from hetlora.errors import DeviceTooSmall
from hetlora.manifest import Manifest, reads_images
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import CapabilityReport, Offer

logger = logging.getLogger(__name__)

# More examples than these are not tokenised to find the longest: most of them would not be drawn.
MOST_EXAMPLES_READ: Final = 1000
_EXAMPLES_AT_A_TIME: Final = 64


class Candidate:
    """A bundle that this device may train or score with, and how it would.

    `choice` is what is known of that so far, and final once `is_settled`; before, None is a bundle that only
    a trial could show to fit. A profile by hand stands for another device, which nothing that is measured
    here would say anything of: it is settled at once, as evaluations are, which ask for less.

    Raises:
        DeviceTooSmall, RankOutOfRange, BundleInvalid: see `Planner` and `Corrections.check_may_try`.
        DependencyMissing: there is no runtime for it here.
    """

    def __init__(
        self, bundle: ObjectRef, manifest: Manifest, offer: Offer, examples: ExampleStore, tools: Equipment
    ) -> None:
        self.bundle, self.manifest = bundle, manifest
        self.runtime: RuntimeFactory = tools.runtime or runtime_for(manifest)
        self._examples, self._with = examples, tools
        self._planner = planner_of(offer, bundle, manifest, examples, tools)
        is_given = self._planner.capabilities.source == "given"
        self._known = None if is_given else known_correction(self._planner, bundle, self.runtime, tools)
        self.is_settled = is_given or self._known is not None or offer.kind != "train"
        if offer.kind == "evaluate":  # asked before anything is fetched for it
            tools.corrections.check_may_try(bundle.sha256, EVALUATION)
        elif not self.is_settled:  # an adoption counts by itself the comparisons that were cut off
            tools.corrections.check_may_try(bundle.sha256, self._circumstances)
        self.choice: RankChoice | None = self._settled() if self.is_settled else self._forecast()

    def look_again(self, offer: Offer) -> None:
        """Plan with the memory of now, and the time that is left; errors as the class."""
        self._planner = planner_of(offer, self.bundle, self.manifest, self._examples, self._with)
        self.choice = self._settled() if self.is_settled else self._forecast()

    def try_out(self) -> None:
        """Take real steps with it, whose files are here.

        Raises:
            DeviceTooSmall: see `Planner`; or a trial of the bundle ends for want of memory, or did within the
                last hour.
            ConditionsUnmet: a condition was lost during the trial.
        """
        tools, circumstances = self._with, self._circumstances
        self._known = self._tried(circumstances)
        self.is_settled = True
        # Also where it makes the device decline, which then loads no model to find that out again.
        tools.corrections.keep(self.bundle.sha256, circumstances, self._known)
        self.choice = self._settled()

    @property
    def _circumstances(self) -> str:
        return circumstances_of(self._planner.capabilities, self._with.threads, self.runtime)

    def _settled(self) -> RankChoice:
        if self._planner.capabilities.source == "given":
            return self._planner.choose()
        longest = self._longest_tokens()
        return replace(self._planner, correction=self._known or UNCORRECTED, longest_tokens=longest).choose()

    def _forecast(self) -> RankChoice | None:
        plan_trial(self._planner)  # it may decline, and then nothing is fetched
        try:
            return self._planner.choose()
        except DeviceTooSmall:
            return None

    def _tried(self, circumstances: str) -> Correction:
        tools, planner = self._with, self._planner
        offer, step = planner.offer, plan_trial(planner)
        bundle, forecast = tools.bundles.bundle(self.bundle), trial_forecast(planner, step)
        taking = steps_of(bundle, self.runtime, self._examples, step, offer.training, tools.threads)
        try:
            with tools.corrections.trying(self.bundle.sha256, circumstances):
                trial = run_trial(taking, check=tools.watch.check, system=tools.watch.system)
        except MemoryError as error:
            raise DeviceTooSmall(
                "a step takes more memory than this device gives",
                got="no memory for a batch",
                expected=f"{forecast.peak_bytes / MIB:.0f} MiB, as was forecast",
            ) from error
        correction = correction_of(trial, forecast)
        logger.info("bundle=%s event=tried correction=%s", self.bundle.sha256[:12], correction)
        return correction

    def _longest_tokens(self) -> int | None:
        """Of the device's texts, those that are scored included, where the tokenizer is there to tell."""
        tools, planner = self._with, self._planner
        if reads_images(self.manifest.task) or tools.bundles.missing_bytes(self.bundle):
            return None
        read = batching_of(tools.bundles.bundle(self.bundle), planner.offer.training).read
        stores = (self._examples, *([tools.held_out] * planner.scores))
        longest = [longest_tokens(read(store)) for store in stores]
        known = [tokens for tokens in longest if tokens is not None]
        return max(known) if len(known) == len(longest) else None


def planner_of(
    offer: Offer, bundle: ObjectRef, manifest: Manifest, examples: ExampleStore, tools: Equipment
) -> Planner:
    """The arithmetic of an offer with one of its bundles, in the memory of now."""
    shape = ModelShape.of(manifest, batch=offer.training.batch_size, tokens=offer.training.max_tokens)
    return Planner(
        _within_reserve(tools.capabilities(shape), tools.watch.reserved_bytes()),
        manifest,
        offer,
        examples.count(),
        tools.threads,
        bundle_bytes=tools.bundles.missing_bytes(bundle),
        scores=offer.kind == "train" and offer.training.evaluate and tools.held_out.count() > 0,
    )


def known_correction(
    planner: Planner, bundle: ObjectRef, runtime: RuntimeFactory, tools: Equipment
) -> Correction | None:
    """What real steps of a bundle took here, as far as that is believed still."""
    circumstances = circumstances_of(planner.capabilities, tools.threads, runtime)
    return tools.corrections.of(bundle.sha256, circumstances)


def longest_tokens(source: Source) -> int | None:
    """How many tokens the longest example has, or what is learned of it; None where there are too many."""
    ids = source.ids()
    if not 0 < len(ids) <= MOST_EXAMPLES_READ:
        return None
    longest = 0
    for start in range(0, len(ids), _EXAMPLES_AT_A_TIME):
        rows = source.get(ids[start : start + _EXAMPLES_AT_A_TIME])
        longest = max([longest, *(row.length for row in rows)])
    return longest or None


def _within_reserve(capabilities: CapabilityReport, reserved_bytes: int) -> CapabilityReport:
    """What is left of the memory once others have what is theirs: or the first step would take it."""
    left = capabilities.memory_available_bytes - reserved_bytes
    return capabilities.model_copy(update={"memory_available_bytes": max(0, left)})
