"""Why a device trains as it does: which limit bound the rank, and what was given up for it."""

from __future__ import annotations

from collections.abc import Iterator

from edge_sdk.planning.forecast import Correction
from edge_sdk.planning.planner import Planner, RankChoice
from hetlora.manifest import Manifest, reads_images


def bound_in_words(choice: RankChoice) -> str:
    """What kept the rank from being higher."""
    return {
        "offer": "the run allows no higher rank",
        "bundle": "the bundle is stamped for this rank",
        "memory": "the next rank does not fit the memory, not even one row at a time",
        "time": "at the next rank not even half of the steps fit the round's time",
        "traffic": "the next rank passes the traffic that is allowed in a round",
    }[choice.bound_by]


def concessions(planner: Planner, choice: RankChoice) -> Iterator[str]:
    """What of the run's settings the device gives up, in the order in which things are given up."""
    asked, step, forecast = planner.offer.training, choice.step, choice.forecast
    if step.batch < asked.batch_size:
        yield f"batches of {step.batch} examples instead of {asked.batch_size}: there are no more"
    if len(step.parts) > 1:
        yield f"batches in {len(step.parts)} parts of up to {choice.micro_batch} rows, for want of memory"
    if forecast.steps < asked.steps:
        yield f"about {forecast.steps} of {asked.steps} steps, for want of time"
    longest = planner.lengths()[0]
    if choice.max_tokens < longest:
        yield f"texts cut to {choice.max_tokens} of {longest} tokens, for want of memory"


def settled_by_bundle(manifest: Manifest) -> Iterator[str]:
    """What no device chooses but with its bundle."""
    recompute = "" if manifest.recompute == "none" else f", activations recomputed ({manifest.recompute})"
    yield f"frozen weights in {manifest.base_precision}{recompute}"
    left = f" of {len(manifest.adapter.modules)}" if manifest.untrained else ""
    yield f"{len(manifest.trained)}{left} modules trained, of up to rank {manifest.adapter.max_rank}"
    if manifest.fixed_rank is not None:
        yield f"stamped for rank {manifest.fixed_rank}"
    if not reads_images(manifest.task):
        yield f"texts of up to {manifest.max_tokens} tokens"


def correction_in_words(correction: Correction | None) -> str:
    """What real steps on this device had to say."""
    if correction is None:
        return "not tried on this device: as the bundle's cost model and the probe have it"
    power = "" if correction.watts is None else f", drawing {correction.watts:.1f} W"
    return (
        f"tried on this device: {correction.memory:.2f} times the memory and {correction.seconds:.2f} times "
        f"the time of the plain forecast{power}"
    )
