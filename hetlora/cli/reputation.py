"""`hetlora device reputation`, `hetlora population suspend-after`: how devices did, and what follows."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.name_options import DeviceArgument, PopulationArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.trust import CaFileOption
from hetlora.errors import SettingsError
from hetlora.messages.quarantine import SuspensionRule


def reputation(
    device_id: DeviceArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what a device's assignments came to, and how many of its newest updates were quarantined.

    Example: `hetlora device reputation DEVICE`
    """
    with connect(url, token, ca_file) as operator:
        found = operator.quarantine.reputation(device_id)
    if as_json:
        print_json(found)
        return
    say(
        f"device {found.device_id}: {found.state}, {found.reason}",
        f"updates: {found.accepted} accepted, {found.quarantined} quarantined, {found.released} released, "
        f"{found.discarded} discarded",
        f"without an update: {found.failed} failed, {found.expired} expired, {found.aborted} aborted",
    )
    if found.standing is not None:
        say(
            f"standing {found.standing:.0%}: {found.recent_quarantined} of its newest {found.recent_updates} "
            "updates are in quarantine"
        )


def suspend_after(
    population: PopulationArgument,
    quarantines: Annotated[
        int | None, typer.Option(min=1, max=1000, help="So many updates in quarantine suspend a device.")
    ] = None,
    within_updates: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Of so many of its newest.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Suspend no device by itself any more.")] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Have devices suspended by themselves once too many of their updates were quarantined.

    It is off until it is set. What is released does not count, nor what was before an operator last accepted
    the device.

    Example: `hetlora population suspend-after phones --quarantines 3 --within-updates 20`
    """
    if off == (quarantines is not None or within_updates is not None):
        raise SettingsError(
            "when devices are suspended", expected="--quarantines and --within-updates, or --off alone"
        )
    rule = None
    if not off:
        if quarantines is None or within_updates is None:
            raise SettingsError("--quarantines and --within-updates belong together")
        rule = SuspensionRule(quarantines=quarantines, within_updates=within_updates)
    with connect(url, token, ca_file) as operator:
        status = operator.quarantine.suspend_after(population, rule)
    if as_json:
        print_json(status)
    elif status.suspension is None:
        say(f"population {status.name}: no device is suspended by itself")
    else:
        told = status.suspension
        say(f"population {status.name}: {told.quarantines} of {told.within_updates} updates suspend a device")
