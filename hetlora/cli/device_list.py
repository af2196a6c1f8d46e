"""`hetlora device list|assignments|replaced-keys`: the devices that a service knows."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.device_filter import holds
from hetlora.cli.group import condition_of
from hetlora.cli.name_options import DeviceArgument, OfPopulationOption
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items
from hetlora.cli.trust import CaFileOption
from hetlora.states import DeviceState


def list_devices(
    population: OfPopulationOption = None,
    state: Annotated[DeviceState | None, typer.Option(help="Only those in this state.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only those for which this holds, as in `hetlora group create`: cores>=4, label.site=lab, "
            "name^=kiosk; again for another.",
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List devices; with --json also what they can do, and their labels.

    The service is asked for all of a population, of which those are told for which everything holds.

    Example: `hetlora device list --population keyboard --state accepted --where 'cores>=4'`
    """
    columns = ["device_id", "name", "population", "state", "last_contact_at"]
    conditions = [condition_of(text) for text in where or ()]
    with connect(url, token, ca_file) as operator:
        found = (
            device
            for device in operator.devices(population)
            if state in (None, device.state) and all(holds(own, device) for own in conditions)
        )
        print_items(found, columns, as_json=as_json, title="Devices")


def replaced_keys(
    device_id: DeviceArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the public keys that a device had before the one it has; they open nothing any more.

    Example: `hetlora device replaced-keys DEVICE`
    """
    with connect(url, token, ca_file) as operator:
        found = operator.history.replaced_keys(device_id)
        print_items(found, ["public_key", "replaced_at"], as_json=as_json, title="Replaced keys")


def assignments(
    device_id: DeviceArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List what a device was given to do, newest first, and what became of it: why it was given back, say.

    Example: `hetlora device assignments DEVICE`
    """
    columns = ["assignment_id", "round_index", "attempt", "state", "rank", "last_loss", "reason"]
    with connect(url, token, ca_file) as operator:
        found = operator.history.assignments(device_id)
        print_items(found, columns, as_json=as_json, title="Assignments")
