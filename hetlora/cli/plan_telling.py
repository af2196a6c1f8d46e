"""What `hetlora plan` tells of the bundles that it planned: the one that is taken, and why no other is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from hetlora.bundle import Bundle
from hetlora.cli.output import plain, print_json, say, stdout
from hetlora.errors import DeviceTooSmall, RankOutOfRange

if TYPE_CHECKING:
    from edge_sdk.planning.forecast import Correction
    from edge_sdk.planning.planner import Attempt, Planner, RankChoice


@dataclass(frozen=True, slots=True)
class Planned:
    """A bundle and how a device would train it, or why it would not."""

    bundle: Bundle
    planner: Planner
    known: Correction | None
    choice: RankChoice | None
    refusal: DeviceTooSmall | RankOutOfRange | None

    @classmethod
    def of(cls, bundle: Bundle, planner: Planner, known: Correction | None) -> Planned:
        """Plan; `known` is what real steps took, of which the planner knows."""
        try:
            return cls(bundle, planner, known, planner.choose(), None)
        except (DeviceTooSmall, RankOutOfRange) as error:
            return cls(bundle, planner, known, None, error)

    def attempts(self) -> list[Attempt]:
        """What each rank would take; none where the bundle has none of the run's."""
        if isinstance(self.refusal, RankOutOfRange):
            return []
        longest = self.planner.lengths()[-1] if self.choice is None else self.choice.max_tokens
        return list(self.planner.attempts(longest))

    def in_words(self) -> str:
        """The rank and what bound it, or the refusal."""
        from edge_sdk.planning.explanation import bound_in_words

        if self.choice is None:
            return str(self.refusal)
        return f"rank {self.choice.rank}: {bound_in_words(self.choice)}"


def tell(bundles: Sequence[Planned], *, explain: bool, as_json: bool) -> None:
    """Tell of the run's own bundle and its variants in their order.

    Raises:
        DeviceTooSmall, RankOutOfRange: none is taken; of the run's own.
    """
    from edge_sdk.planning.preference import preferred

    plans = [(planned.bundle.manifest, planned.choice) for planned in bundles]
    place = preferred(plans, bundles[0].planner.offer.training.max_tokens)
    taken = bundles[place or 0]
    if as_json:
        print_json(_as_object(taken) | {"bundles": [_told_of(planned, taken) for planned in bundles]})
    else:
        if len(bundles) > 1:
            say(*(_line(planned, taken) for planned in bundles))
        if place is not None or explain:
            _print(taken, explain=explain, is_alone=len(bundles) == 1)
    if taken.refusal is not None:
        raise taken.refusal


def _line(planned: Planned, taken: Planned) -> str:
    is_taken = planned is taken and planned.choice is not None
    precision = planned.planner.manifest.base_precision
    return (
        f"{'taken' if is_taken else 'not taken'} {planned.bundle.folder} ({precision}): {planned.in_words()}"
    )


def _told_of(planned: Planned, taken: Planned) -> dict[str, Any]:
    choice, manifest = planned.choice, planned.planner.manifest
    return {
        "bundle": planned.bundle.digest,
        "base_precision": manifest.base_precision,
        "taken": planned is taken and choice is not None,
        "rank": None if choice is None else choice.rank,
        "max_tokens": None if choice is None else choice.max_tokens,
        "bound_by": None if choice is None else choice.bound_by,
        "reason": None if planned.refusal is None else str(planned.refusal),
    }


def _as_object(planned: Planned) -> dict[str, Any]:
    from edge_sdk.planning.explanation import concessions

    planner, choice, known = planned.planner, planned.choice, planned.known
    chosen = choice and {
        "rank": choice.rank,
        "bound_by": choice.bound_by,
        "micro_batch": choice.micro_batch,
        "batch": choice.step.batch,
        "steps": choice.forecast.steps,
        "max_tokens": choice.max_tokens,
        "forecast": asdict(choice.forecast),
        "concessions": list(concessions(planner, choice)),
    }
    return {
        "fits": choice is not None,
        "reason": None if planned.refusal is None else str(planned.refusal),
        "choice": chosen,
        "memory_budget_bytes": planner.memory_bytes,
        "correction": None if known is None else asdict(known),
        "ranks": [_row(attempt) for attempt in planned.attempts()],
    }


def _print(planned: Planned, *, explain: bool, is_alone: bool) -> None:
    from edge_sdk.planning.explanation import concessions, correction_in_words, settled_by_bundle

    planner = planned.planner
    if planned.choice is not None:
        if is_alone:
            say(planned.in_words())
        say(*concessions(planner, planned.choice))
    attempts = planned.attempts() if explain else []
    if attempts:
        stdout.print(_table(attempts))
        say(
            f"memory: {planner.memory_bytes / 1e6:.0f} MB, {planner.memory_share:.0%} of what is free",
            f"time: {planner.offer.round_seconds:.0f} s",
            f"forecast: {correction_in_words(planned.known)}",
            *(f"bundle: {fact}" for fact in settled_by_bundle(planner.manifest)),
        )


def _row(attempt: Attempt) -> dict[str, Any]:
    forecast = attempt.forecast
    return {
        "rank": attempt.rank,
        "micro_batch": attempt.step.micro_batch,
        "steps": forecast.steps,
        "peak_bytes": forecast.peak_bytes,
        "step_seconds": forecast.step_seconds,
        "seconds": forecast.seconds,
        "download_bytes": forecast.download_bytes,
        "upload_bytes": forecast.upload_bytes,
        "joules": forecast.joules,
        "passes": attempt.passes,
    }


def _table(attempts: Sequence[Attempt]) -> Table:
    table = Table(title="What each rank would take", title_justify="left")
    headings = ("rank", "rows at a time", "steps", "peak MB", "s a step", "s in all", "down MB", "up MB", "J")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("too much")
    for attempt in attempts:
        forecast = attempt.forecast
        table.add_row(
            str(attempt.rank),
            str(attempt.step.micro_batch),
            str(forecast.steps),
            f"{forecast.peak_bytes / 1e6:.0f}",
            f"{forecast.step_seconds:.3g}",
            f"{forecast.seconds:.3g}",
            f"{forecast.download_bytes / 1e6:.2f}",
            f"{forecast.upload_bytes / 1e6:.2f}",
            "unknown" if forecast.joules is None else f"{forecast.joules:.3g}",
            plain(attempt.passes),
        )
    return table
