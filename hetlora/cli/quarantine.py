"""`hetlora quarantine`: updates that screens took out of rounds, and what to make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.progress import work
from hetlora.cli.trust import CaFileOption
from hetlora.cli.whole_file import write_new
from hetlora.messages.quarantine import QuarantinedUpdate, QuarantineVerb
from hetlora.states import QuarantineState

app = typer.Typer(
    no_args_is_help=True,
    help="Quarantine: updates that screens took out of rounds (`hetlora run create --screens`).",
)
AssignmentArgument = Annotated[
    str, typer.Argument(metavar="ASSIGNMENT", help="The assignment that the update is of.")
]
ReasonOption = Annotated[str, typer.Option(help="Kept with the decision.")]


@app.command("list")
def list_quarantine(
    run_id: Annotated[str | None, typer.Option("--run", help="Only this run's.")] = None,
    device_id: Annotated[str | None, typer.Option("--device", help="Only this device's.")] = None,
    state: Annotated[QuarantineState | None, typer.Option(help="Only those in this state.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List quarantined updates, newest first; held ones wait for an operator, and count against devices.

    Example: `hetlora quarantine list --state held`
    """
    columns = ["assignment_id", "device_id", "round_index", "state", "finding", "kept", "quarantined_at"]
    with connect(url, token, ca_file) as operator:
        found = operator.quarantine.all(run_id=run_id, device_id=device_id, state=state)
        print_items(found, columns, as_json=as_json, title="Quarantine")


@app.command()
def show(
    assignment_id: AssignmentArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show why an update is in quarantine, and whether its bytes are still kept.

    Example: `hetlora quarantine show ASSIGNMENT`
    """
    with connect(url, token, ca_file) as operator:
        _tell(operator.quarantine.one(assignment_id), as_json)


@app.command()
def release(
    assignment_id: AssignmentArgument,
    reason: ReasonOption = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Have an update no longer count against its device.

    Its round went on without it, and it is merged nowhere. A device that was suspended for it is taken back
    with `hetlora device decide ID accepted`.

    Example: `hetlora quarantine release ASSIGNMENT --reason "a dialect, not an attack"`
    """
    _decide(assignment_id, "release", reason, url, token, ca_file, as_json)


@app.command()
def confirm(
    assignment_id: AssignmentArgument,
    reason: ReasonOption = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say that an update is in quarantine rightly; it goes on counting against its device.

    Example: `hetlora quarantine confirm ASSIGNMENT --reason "the same sign in every update"`
    """
    _decide(assignment_id, "confirm", reason, url, token, ca_file, as_json)


@app.command()
def download(
    assignment_id: AssignmentArgument,
    out: Annotated[Path, typer.Option(help="The safetensors file to write; it must not exist yet.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a quarantined update as its device sent it, to look at it; the audit log notes who did.

    Example: `hetlora quarantine download ASSIGNMENT --out update.safetensors`
    """
    with connect(url, token, ca_file) as operator, work("Downloading", as_json=as_json) as told:
        data = operator.quarantine.content(assignment_id, told.moved)
    write_new(out, data)
    if as_json:
        print_json({"file": str(out), "size_bytes": len(data)})
    else:
        say(f"{out}: {len(data)} bytes")


def _decide(
    assignment_id: str,
    verb: QuarantineVerb,
    reason: str,
    url: str,
    token: str,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    with connect(url, token, ca_file) as operator:
        _tell(operator.quarantine.decide(assignment_id, verb, reason), as_json)


def _tell(update: QuarantinedUpdate, as_json: bool) -> None:
    if as_json:
        print_json(update)
        return
    kept = "kept" if update.kept else "removed"
    say(
        f"update of assignment {update.assignment_id}: {update.state}, {update.reason}",
        f"screen {update.screen}: {update.finding}",
        f"round {update.round_index} of run {update.run_id}, device {update.device_id} {update.device_name}",
        f"rank {update.rank}, {update.example_count} examples, {update.size_bytes} bytes, {kept}",
    )
