"""`hetlora device preauthorize|decide|rotate-key`: which devices may take part, and under which key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.example_options import ExamplesKeyFileOption, read_key
from hetlora.cli.name_options import DeviceArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.trust import CaFileOption, PinOption, ProxyOption
from hetlora.messages.fleet import DeviceDecision, DeviceDetails, DevicePreauthorization
from hetlora.states import DeviceState


def preauthorize(
    population: Annotated[str, typer.Option(help="The population that the device will join.")],
    device_id: Annotated[str | None, typer.Option(help="The device's id, if it is known.")] = None,
    public_key: Annotated[str | None, typer.Option(help="Its Ed25519 public key, in base64.")] = None,
    name: Annotated[str, typer.Option(help="What operators see.")] = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Have a device accepted when it comes, without an enrolment token.

    Example: `hetlora device preauthorize --population keyboard --public-key KEY --name kiosk-7`
    """
    message = DevicePreauthorization(
        population=population, device_id=device_id, public_key=public_key, name=name
    )
    with connect(url, token, ca_file) as operator:
        _tell(operator.preauthorize(message), as_json)


def decide(
    device_id: DeviceArgument,
    state: Annotated[DeviceState, typer.Argument(help="The state to bring it to.")],
    reason: Annotated[str, typer.Option(help="Kept with the decision.")] = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Accept a device that waits, or shut one out; whoever is shut out loses the work that it has.

    Example: `hetlora device decide DEVICE suspended --reason "sends nothing but noise"`
    """
    with connect(url, token, ca_file) as operator:
        _tell(operator.decide(device_id, DeviceDecision(state=state, reason=reason)), as_json)


def rotate_key(
    population: Annotated[str, typer.Option(help="The population that the device is in.")],
    folder: Annotated[Path, typer.Option(help="The device's folder.")],
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    pin: PinOption = None,
    proxy: ProxyOption = None,
    examples_key_file: ExamplesKeyFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give the device of this folder another key; its id stays, and the key so far opens nothing any more.

    Example: `hetlora device rotate-key --population keyboard --folder device/`
    """
    with part("edge"):
        from edge_sdk import EdgeClient
    with EdgeClient(
        url,
        population,
        folder,
        ca_file=ca_file,
        tls_pins=pin or (),
        proxy=proxy,
        encryption_key=read_key(examples_key_file),
    ) as client:
        client.rotate_key()
        if as_json:
            print_json({"device_id": client.device_id})
        else:
            say(f"device {client.device_id} has a new key")


def _tell(device: DeviceDetails, as_json: bool) -> None:
    if as_json:
        print_json(device)
    else:
        say(f"device {device.device_id} in population {device.population}: {device.state}")
