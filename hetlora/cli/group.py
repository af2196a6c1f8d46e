"""`hetlora group`: devices by what is known of them; `hetlora device label` and `history`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import typer

from hetlora.cli.name_options import DeviceArgument, GroupArgument, OfPopulationOption
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.trust import CaFileOption
from hetlora.errors import SettingsError
from hetlora.messages.rollouts import (
    NUMBER_FIELDS,
    DeviceFilter,
    GroupCondition,
    GroupCreate,
    GroupStatus,
    LabelChange,
)

app = typer.Typer(no_args_is_help=True, help="Groups: devices of a population by label, state, capability.")

_COMPARISONS: Final = {
    "!=": "is_not",
    ">=": "at_least",
    "<=": "at_most",
    "^=": "begins_with",
    "=": "is",
}
_CONDITION: Final = re.compile(r"([^!<>^=]+)(!=|>=|<=|\^=|=)(.*)")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name that no other group of the population has.")],
    population: Annotated[str, typer.Option(help="Whose devices.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="What holds for its devices, all of them together: cores>=4, architecture=x86_64, "
            "network!=cellular, label.site=lab, name^=kiosk. Fields: state, name, label.KEY, and those of "
            "`hetlora probe --report`.",
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a group of devices; who is in it is asked at each check-in.

    Example: `hetlora group create lab --population keyboard --where label.site=lab --where 'cores>=4'`
    """
    conditions = tuple(map(condition_of, where or []))
    message = GroupCreate(population=population, name=name, filter=DeviceFilter(conditions=conditions))
    with connect(url, token, ca_file) as operator:
        _tell(operator.rollouts.create_group(message), as_json)


@app.command("list")
def list_groups(
    population: OfPopulationOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List groups.

    Example: `hetlora group list --population keyboard`
    """
    columns = ["group_id", "population", "name", "created_at"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.rollouts.groups(population), columns, as_json=as_json, title="Groups")


@app.command()
def show(
    group_id: GroupArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a group's conditions, and count its devices.

    Example: `hetlora group show GROUP`
    """
    with connect(url, token, ca_file) as operator:
        _tell(operator.rollouts.group(group_id), as_json)


@app.command()
def delete(
    group_id: GroupArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Forget a group; rollouts keep its conditions as they were.

    Example: `hetlora group delete GROUP`
    """
    with connect(url, token, ca_file) as operator:
        operator.rollouts.delete_group(group_id)
    if as_json:
        print_json({"deleted": group_id})
    else:
        say(f"group {group_id} is deleted")


def label(
    device_id: DeviceArgument,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE; again for another.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A key that goes.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Label a device, for groups to go by.

    Example: `hetlora device label DEVICE --set site=lab --remove spare`
    """
    labels = dict(_pair(text) for text in set_ or [])
    change = LabelChange(set=labels, remove=tuple(remove or []))
    with connect(url, token, ca_file) as operator:
        found = operator.rollouts.label(device_id, change)
    if as_json:
        print_json(found)
    else:
        told = ", ".join(f"{key}={value}" for key, value in found.labels.items())
        say(f"device {found.device_id}: {told or 'no labels'}")


def history(
    device_id: DeviceArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell a device's changes of state, and what rollouts asked of it, the oldest first.

    Example: `hetlora device history DEVICE`
    """
    with connect(url, token, ca_file) as operator:
        found = list(operator.history.transitions("device", device_id))
        for ask in operator.rollouts.of_device(device_id):
            found += operator.history.transitions("rollout_device", ask.ask_id)
    found.sort(key=lambda row: row.at)
    columns = ["subject_id", "subject", "at", "old", "new", "reason"]
    print_items(found, columns, as_json=as_json, title="History")


def condition_of(text: str) -> GroupCondition:
    """A condition as it is typed.

    Raises:
        SettingsError: it is none, or compares a number with a text.
    """
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise SettingsError("a condition of a group", got=text, expected="such as cores>=4 or label.site=lab")
    field, sign, value = (part.strip() for part in parts.groups())
    told: Any = value
    if field in NUMBER_FIELDS:
        try:
            told = float(value)
        except ValueError as error:
            raise SettingsError(f"{field} of a group", got=value, expected="a number") from error
    return GroupCondition.model_validate({"field": field, "comparison": _COMPARISONS[sign], "value": told})


def condition_in_words(condition: GroupCondition) -> str:
    """A condition as it is typed."""
    sign = next(sign for sign, name in _COMPARISONS.items() if name == condition.comparison)
    value = condition.value if isinstance(condition.value, str) else f"{condition.value:.15g}"
    return f"{condition.field}{sign}{value}"


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise SettingsError("a label", got=text, expected="KEY=VALUE")
    return key, value


def _tell(group: GroupStatus, as_json: bool) -> None:
    if as_json:
        print_json(group)
        return
    conditions = " and ".join(map(condition_in_words, group.filter.conditions))
    say(
        f"group {group.group_id}: {group.name} of population {group.population}",
        f"{conditions or 'all accepted devices'}: {group.devices} devices now",
    )
