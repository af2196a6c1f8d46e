"""`hetlora rollout`: an adapter version on its way to a group of devices, stage by stage, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hetlora.cli.name_options import OfPopulationOption, RolloutArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items
from hetlora.cli.rollout_told import tell
from hetlora.cli.rollout_watch import watch
from hetlora.cli.trust import CaFileOption
from hetlora.cli.version_option import VersionArgument, version_of
from hetlora.errors import SettingsError
from hetlora.messages.rollouts import RolloutCreate, RolloutSettings
from hetlora.states import RolloutDeviceState

app = typer.Typer(
    no_args_is_help=True, help="Rollouts: a version goes to a group in stages, and back if bad."
)

app.command()(watch)

# As they are typed, and as the message has them.
_FIELDS: Final = {
    "share": "share",
    "reports": "least_reports",
    "failed": "most_failed_share",
    "loss": "most_loss_increase",
    "settle": "settle_seconds",
}


@app.command()
def create(
    version: VersionArgument,
    stage: Annotated[
        list[str],
        typer.Option(
            help="share=0.05,reports=20,failed=0.1,loss=0.02,settle=3600: this share of the group; decided "
            "by so many reports at least; at most this share of failures, and this rise of the mean loss on "
            "held-out examples, or all goes back; seconds that it lasts at least. Again for the next stage."
        ),
    ],
    group: Annotated[str | None, typer.Option(help="The group's name; without it, all devices.")] = None,
    former: Annotated[
        str | None,
        typer.Option(
            help="The version to go back to, or POPULATION@ALIAS; else the one in force, or the run's first."
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(help="BEGIN/END in ISO 8601 with a zone: no stage begins in between."),
    ] = None,
    lease_seconds: Annotated[
        float, typer.Option(help="A device that began and is not heard of for so long counts as failed.")
    ] = 3600.0,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a rollout in state draft; `hetlora rollout start` begins it.

    Example: `hetlora rollout create keyboard@candidate --group lab
    --stage share=0.05,reports=20,loss=0.02,settle=3600 --stage share=1,reports=100`
    """
    settings = {
        "stages": [_stage_of(text) for text in stage],
        "freeze": [_window_of(text) for text in freeze or []],
        "lease_seconds": lease_seconds,
    }
    # A stage that does not fit is told before the service is asked for an alias.
    wanted = RolloutSettings.model_validate(settings)
    with connect(url, token, ca_file) as operator:
        message = RolloutCreate(
            version=version_of(operator, version),
            group=group,
            former=None if former is None else version_of(operator, former),
            settings=wanted,
        )
        tell(operator.rollouts.create(message), as_json)


@app.command()
def start(
    rollout_id: RolloutArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the devices of the first stage.

    Example: `hetlora rollout start ROLLOUT`
    """
    _move(rollout_id, "start", url, token, ca_file, as_json)


@app.command()
def pause(
    rollout_id: RolloutArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask no other device; one that turns out bad goes back all the same.

    Example: `hetlora rollout pause ROLLOUT`
    """
    _move(rollout_id, "pause", url, token, ca_file, as_json)


@app.command()
def resume(
    rollout_id: RolloutArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Go on with a paused rollout.

    Example: `hetlora rollout resume ROLLOUT`
    """
    _move(rollout_id, "resume", url, token, ca_file, as_json)


@app.command()
def stop(
    rollout_id: RolloutArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """End a rollout; devices that adopted the version keep it.

    Example: `hetlora rollout stop ROLLOUT`
    """
    _move(rollout_id, "stop", url, token, ca_file, as_json)


@app.command("roll-back")
def roll_back(
    rollout_id: RolloutArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Have the devices that adopted the version take the one before; also after the rollout's end.

    Example: `hetlora rollout roll-back ROLLOUT`
    """
    _move(rollout_id, "roll-back", url, token, ca_file, as_json)


@app.command()
def show(
    rollout_id: RolloutArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how a rollout stands, and why its stages were decided as they were.

    Example: `hetlora rollout show ROLLOUT`
    """
    with connect(url, token, ca_file) as operator:
        tell(operator.rollouts.one(rollout_id), as_json)


@app.command("list")
def list_rollouts(
    population: OfPopulationOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List rollouts.

    Example: `hetlora rollout list --population keyboard`
    """
    columns = ["rollout_id", "population", "version", "group", "state", "stage", "created_at"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.rollouts.all(population), columns, as_json=as_json, title="Rollouts")


@app.command()
def devices(
    rollout_id: RolloutArgument,
    state: Annotated[RolloutDeviceState | None, typer.Option(help="Only those in this state.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the devices that a rollout asked, and what became of each.

    Example: `hetlora rollout devices ROLLOUT --state failed`
    """
    columns = ["device_id", "stage", "state", "rank", "reason"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.rollouts.devices(rollout_id, state), columns, as_json=as_json, title="Devices")


def _stage_of(text: str) -> dict[str, Any]:
    """Raises SettingsError where a part is none, or no number."""
    told: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _FIELDS:
            raise SettingsError(
                "a part of a stage", got=part, expected=f"one of {', '.join(_FIELDS)}, =NUMBER"
            )
        if _FIELDS[name] in told:
            raise SettingsError("a stage says it twice", got=text, expected=f"one {name}=NUMBER")
        try:
            told[_FIELDS[name]] = int(value) if name == "reports" else float(value)
        except ValueError as error:
            raise SettingsError(f"{name} of a stage", got=value, expected="a number") from error
    return told


def _window_of(text: str) -> dict[str, str]:
    begin, sign, end = text.partition("/")
    if not sign:
        raise SettingsError("a freeze window", got=text, expected="BEGIN/END")
    return {"begins_at": begin, "ends_at": end}


def _move(rollout_id: str, verb: str, url: str, token: str, ca_file: Path | None, as_json: bool) -> None:
    with connect(url, token, ca_file) as operator:
        tell(operator.rollouts.move(rollout_id, verb), as_json)
