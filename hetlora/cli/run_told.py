"""How a run stands, in a line."""

from __future__ import annotations

from hetlora.cli.output import print_json, say
from hetlora.messages.management import RunStatus
from hetlora.states import RunState


def show(run: RunStatus, as_json: bool) -> None:
    """Say how a run stands."""
    if as_json:
        print_json(run)
        return
    hint = f"; start it with `hetlora run start {run.run_id}`" if run.state == RunState.DRAFT else ""
    say(f"run {run.run_id}: {run.state}{hint}")
