"""Which population, run, device, group or rollout a command is about."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.completion import (
    complete_groups,
    complete_populations,
    complete_rollouts,
    complete_runs,
)

PopulationArgument = Annotated[
    str, typer.Argument(metavar="POPULATION", help="The population.", autocompletion=complete_populations)
]
OfPopulationOption = Annotated[
    str | None,
    typer.Option("--population", help="Only this population's.", autocompletion=complete_populations),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="The run, as `hetlora run list` tells it.", autocompletion=complete_runs
    ),
]
DeviceArgument = Annotated[
    str, typer.Argument(metavar="DEVICE", help="The device's id, as `hetlora device list` tells it.")
]
GroupArgument = Annotated[
    str,
    typer.Argument(
        metavar="GROUP",
        help="The group's id, as `hetlora group list` tells it.",
        autocompletion=complete_groups,
    ),
]
RolloutArgument = Annotated[
    str,
    typer.Argument(
        metavar="ROLLOUT",
        help="The rollout, as `hetlora rollout list` tells it.",
        autocompletion=complete_rollouts,
    ),
]
