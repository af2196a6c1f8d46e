"""What a run's rounds came to, as charts and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from console.charts import line_chart, stacked_bars
from console.frame import moment, table
from hetlora.messages.figures import RoundFigures

NAMES = [
    *(
        "round",
        "attempt",
        "state",
        "asked",
        "accepted",
        "ranks",
        "training loss",
        "held-out loss",
        "accuracy",
    ),
    *("MB down", "MB up", "seconds", "epsilon", "ended", "reason"),
]


def show_figures(figures: Sequence[RoundFigures]) -> None:
    """Charts of committed rounds, and the table of all attempts, newest first as they came."""
    committed = [own for own in reversed(figures) if own.version is not None]
    if committed:
        with ui.element("div").classes("w-full grid gap-4 lg:grid-cols-2"):
            _draw(committed)
    else:
        ui.label("No round has committed yet: charts come with the first.")
    table("Rounds", NAMES, [round_row(own) for own in figures], "No round yet.")


def _draw(committed: Sequence[RoundFigures]) -> None:
    def points(name: str, scale: float = 1.0) -> list[tuple[float, float | None]]:
        told = [(own.round_index + 1, getattr(own, name)) for own in committed]
        return [(place, None if value is None else value * scale) for place, value in told]

    losses = {"held out": points("evaluation_loss"), "training, last step": points("last_loss")}
    line_chart("Loss by round", "loss", losses)
    line_chart("Accuracy on what devices hold out", "share", {"accuracy": points("evaluation_accuracy")})
    stacked_bars("Devices by rank", "devices", ranks_by_round(committed))
    moved = {"down": points("downloaded_bytes", 1e-6), "up": points("uploaded_bytes", 1e-6)}
    stacked_bars("Megabytes of devices by round", "MB", moved)
    took = [(own.round_index + 1, seconds_of(own)) for own in committed]
    line_chart(
        "Seconds by round", "s", {"round": took, "training, mean of devices": points("training_seconds")}
    )
    spent: list[tuple[float, float | None]] = [
        (own.round_index + 1, own.privacy.epsilon if own.privacy else None) for own in committed
    ]
    line_chart("Privacy spent by the population", "epsilon", {"epsilon": spent})


def ranks_by_round(figures: Sequence[RoundFigures]) -> dict[str, list[tuple[float, float | None]]]:
    """For each rank that any round had, how many updates of it each round has."""
    ranks = sorted({share.rank for own in figures for share in own.ranks})
    counts = [{share.rank: share.updates for share in own.ranks} for own in figures]
    return {
        f"rank {rank}": [
            (own.round_index + 1, count.get(rank, 0)) for own, count in zip(figures, counts, strict=True)
        ]
        for rank in ranks
    }


def seconds_of(own: RoundFigures) -> float | None:
    """How long a round took from its first offer on."""
    return None if own.ended_at is None else (own.ended_at - own.started_at).total_seconds()


def round_row(own: RoundFigures) -> dict[str, object]:
    """One attempt at a round as a row of a table."""
    return {
        "round": own.round_index + 1,
        "attempt": own.attempt,
        "state": str(own.state),
        "asked": own.asked,
        "accepted": own.accepted,
        "ranks": ", ".join(f"{share.updates} x {share.rank}" for share in own.ranks),
        "training loss": short(own.last_loss),
        "held-out loss": short(own.evaluation_loss),
        "accuracy": short(own.evaluation_accuracy),
        "MB down": short(own.downloaded_bytes / 1e6),
        "MB up": short(own.uploaded_bytes / 1e6),
        "seconds": short(seconds_of(own)),
        "epsilon": short(own.privacy.epsilon if own.privacy else None),
        "ended": moment(own.ended_at),
        "reason": own.reason,
    }


def short(figure: float | None) -> str:
    """Four digits, or nothing."""
    return "" if figure is None else f"{figure:.4g}"
