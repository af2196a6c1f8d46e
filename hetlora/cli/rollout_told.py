"""How a rollout stands, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table

from hetlora.cli.group import condition_in_words
from hetlora.cli.output import plain, print_json, say, stdout
from hetlora.messages.rollouts import RolloutStatus


def tell(rollout: RolloutStatus, as_json: bool) -> None:
    """Say how a rollout stands, and why its stages were decided as they were."""
    if as_json:
        print_json(rollout)
        return
    say(*_lines(rollout))
    if rollout.stages_decided:
        stdout.print(_stages(rollout))


def rollout_drawn(rollout: RolloutStatus) -> RenderableType:
    """The same, to be drawn again and again."""
    return Group(*map(plain, _lines(rollout)), *([_stages(rollout)] if rollout.stages_decided else []))


def _lines(rollout: RolloutStatus) -> Iterator[str]:
    conditions = " and ".join(map(condition_in_words, rollout.filter.conditions))
    group = "all devices" if rollout.group is None else f"group {rollout.group} ({conditions or 'all'})"
    yield f"rollout {rollout.rollout_id}: {rollout.state}, {rollout.reason}"
    yield f"version {rollout.version}, before it {rollout.former}, to {group} of {rollout.population}"
    yield f"stage {rollout.stage} of {len(rollout.settings.stages)}"
    counts = ", ".join(f"{count} {name}" for name, count in rollout.counts.model_dump().items() if count)
    yield counts or "no device was asked yet"


def _stages(rollout: RolloutStatus) -> Table:
    table = Table(title="Stages", title_justify="left")
    for column in ("stage", "outcome", "reports", "failed share", "loss increase", "devices compared"):
        table.add_column(column)
    for own in rollout.stages_decided:
        increase = None if own.loss_increase is None else f"{own.loss_increase:+.4g}"
        cells = (own.stage, own.outcome, own.reports, f"{own.failed_share:.1%}", increase, own.compared)
        table.add_row(*map(plain, cells))
    return table
