"""How an offer is taken: planned, tried where this device never ran the bundle, and planned again.

And how work that was cut off goes on: as it was agreed, where the memory is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge_sdk.batching.batches import Source, batching_of
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.calibration import correction_of, plan_trial, trial_forecast
from edge_sdk.planning.corrections import circumstances_of
from edge_sdk.planning.forecast import UNCORRECTED, Correction
from edge_sdk.planning.planner import Planner, RankChoice
from edge_sdk.planning.trial import run_trial, steps_of
from edge_sdk.probe import ModelShape
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.session.assignment_store import Terms
from edge_sdk.session.equipment import Equipment
from edge_sdk.units import MIB
from hetlora.errors import DeviceTooSmall
from hetlora.manifest import Manifest, reads_images
from hetlora.messages.device import CapabilityReport, Offer

logger = logging.getLogger(__name__)

# More examples than these are not tokenised to find the longest: most of them would not be drawn.
MOST_EXAMPLES_READ: Final = 1000
_EXAMPLES_AT_A_TIME: Final = 64


def choose(
    offer: Offer,
    manifest: Manifest,
    runtime: RuntimeFactory,
    examples: ExampleStore,
    tools: Equipment,
    *,
    timer: Callable[[], float] = time.monotonic,
) -> RankChoice:
    """How this device takes an offer; a bundle that it never ran is fetched and tried first.

    A profile by hand stands for another device, which nothing that is measured here would say anything of.

    Raises:
        DeviceTooSmall, RankOutOfRange, BundleInvalid: see `Planner`; or a trial of the bundle ends for want
            of memory, or did within the last hour.
        ConditionsUnmet: a condition was lost during the trial.
    """
    planner = _planner(offer, manifest, examples, tools)
    if planner.capabilities.source == "given":
        return planner.choose()
    circumstances = circumstances_of(planner.capabilities, tools.threads, runtime)
    known = tools.corrections.of(offer.bundle.sha256, circumstances)
    if known is None and offer.kind == "train":
        plan_trial(planner)  # it may decline, and then nothing is fetched
        if planner.bundle_bytes:
            planner = _planner(_fetched(offer, tools, timer), manifest, examples, tools)
        known = _tried(planner, runtime, examples, tools, circumstances)
        # Also where it makes the device decline, which then loads no model to find that out again.
        tools.corrections.keep(offer.bundle.sha256, circumstances, known)
    longest = _longest_tokens(planner, examples, tools)
    return replace(planner, correction=known or UNCORRECTED, longest_tokens=longest).choose()


def rows_as_agreed(
    offer: Offer,
    terms: Terms,
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
    planner = _planner(offer, manifest, examples, tools)
    if planner.capabilities.source != "given":
        circumstances = circumstances_of(planner.capabilities, tools.threads, runtime)
        known = tools.corrections.of(offer.bundle.sha256, circumstances)
        planner = replace(planner, correction=known or UNCORRECTED)
    return min(terms.micro_batch, planner.rows_for(terms.rank, terms.longest_tokens))


def _planner(offer: Offer, manifest: Manifest, examples: ExampleStore, tools: Equipment) -> Planner:
    shape = ModelShape.of(manifest, batch=offer.training.batch_size, tokens=offer.training.max_tokens)
    capabilities = tools.capabilities(shape)
    reserved_bytes = tools.watch.reserved_bytes()
    return Planner(
        _within_reserve(capabilities, reserved_bytes),
        manifest,
        offer,
        examples.count(),
        tools.threads,
        bundle_bytes=tools.bundles.missing_bytes(offer.bundle),
        scores=offer.kind == "train" and offer.training.evaluate and tools.held_out.count() > 0,
    )


def _fetched(offer: Offer, tools: Equipment, timer: Callable[[], float]) -> Offer:
    """An offer with the time that is left of it once its bundle is here, which may be hours later."""
    started = timer()
    tools.bundles.bundle(offer.bundle)
    return offer.model_copy(update={"round_seconds": offer.round_seconds - (timer() - started)})


def _tried(
    planner: Planner, runtime: RuntimeFactory, examples: ExampleStore, tools: Equipment, circumstances: str
) -> Correction:
    offer, step = planner.offer, plan_trial(planner)
    bundle, forecast = tools.bundles.bundle(offer.bundle), trial_forecast(planner, step)
    taking = steps_of(bundle, runtime, examples, step, offer.training, tools.threads)
    try:
        with tools.corrections.trying(offer.bundle.sha256, circumstances):
            trial = run_trial(taking, check=tools.watch.check, system=tools.watch.system)
    except MemoryError as error:
        raise DeviceTooSmall(
            "a step takes more memory than this device gives",
            got="no memory for a batch",
            expected=f"{forecast.peak_bytes / MIB:.0f} MiB, as was forecast",
        ) from error
    correction = correction_of(trial, forecast)
    logger.info("bundle=%s event=tried correction=%s", offer.bundle.sha256[:12], correction)
    return correction


def _longest_tokens(planner: Planner, examples: ExampleStore, tools: Equipment) -> int | None:
    """Of the device's texts, those that are scored included, where the tokenizer is there to tell."""
    offer = planner.offer
    if reads_images(planner.manifest.task) or tools.bundles.missing_bytes(offer.bundle):
        return None
    read = batching_of(tools.bundles.bundle(offer.bundle), offer.training).read
    longest = [longest_tokens(read(store)) for store in (examples, *([tools.held_out] * planner.scores))]
    known = [tokens for tokens in longest if tokens is not None]
    return max(known) if len(known) == len(longest) else None


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
