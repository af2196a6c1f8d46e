"""`hetlora run figures|assignments`: what a run's rounds came to, and each device's part in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from hetlora.cli.name_options import RunArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, plain, print_items, print_json, stdout
from hetlora.cli.trust import CaFileOption
from hetlora.messages.figures import RoundFigures
from hetlora.states import AssignmentState


def figures(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List what the rounds of a run came to: loss and accuracy, bytes, time, and who trained at which rank.

    Every attempt at a round has a line; `hetlora run export` writes the same, and more, for a notebook.

    Example: `hetlora run figures RUN`
    """
    with connect(url, token, ca_file) as operator:
        rounds = list(operator.figures(run_id))
    if as_json:
        print_json({"items": [own.model_dump(mode="json") for own in rounds]})
    else:
        stdout.print(figures_table(rounds))


def figures_table(rounds: Sequence[RoundFigures]) -> Table:
    """One line an attempt; `ranks` counts updates, as in `4 at 8`."""
    caption = "loss: of training, then on what devices hold out; down, up: MB; ranks: updates at each"
    table = Table(title="Rounds", caption=caption, title_justify="left", caption_justify="left")
    for name in ("round", "attempt", "state", "accepted", "loss", "accuracy", "down", "up", "s", "ranks"):
        table.add_column(name, overflow="fold")
    for own in rounds:
        seconds = None if own.ended_at is None else (own.ended_at - own.started_at).total_seconds()
        cells = (
            own.round_index + 1,
            own.attempt,
            own.state,
            f"{own.accepted} of {own.asked}",
            _losses(own),
            "" if own.evaluation_accuracy is None else f"{own.evaluation_accuracy:.1%}",
            f"{own.downloaded_bytes / 1e6:.2f}",
            f"{own.uploaded_bytes / 1e6:.2f}",
            "" if seconds is None else f"{seconds:.1f}",
            ", ".join(f"{share.updates} at {share.rank}" for share in own.ranks),
        )
        table.add_row(*map(plain, cells))
    return table


def _losses(own: RoundFigures) -> str:
    told = (own.last_loss, own.evaluation_loss)
    return " ".join("-" if loss is None else f"{loss:.3f}" for loss in told)


def assignments(
    run_id: RunArgument,
    round_index: Annotated[
        int | None, typer.Option("--round-index", min=0, help="Only of this round; 0 is the first.")
    ] = None,
    device_id: Annotated[str | None, typer.Option("--device", help="Only this device's.")] = None,
    state: Annotated[AssignmentState | None, typer.Option(help="Only those in this state.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the work that devices were given in a run, and why it ended as it did.

    `hetlora transition list --subject assignment --id ASSIGNMENT` tells one's history.

    Example: `hetlora run assignments RUN --round-index 0 --state failed`
    """
    columns = ["assignment_id", "device_name", "round_index", "state", "rank", "last_loss", "reason"]
    with connect(url, token, ca_file) as operator:
        found = (
            own
            for own in operator.assignments(run_id, round_index)
            if device_id in (None, own.device_id) and state in (None, own.state)
        )
        print_items(found, columns, as_json=as_json, title="Assignments")
