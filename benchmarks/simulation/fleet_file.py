"""Fleet files: which devices there are, when they can work, and the run that they are asked for, as TOML.

seed = 0
bundle = "bundle/"                    # a folder that `hetlora export` wrote

[run]                                 # the settings of a run, as in a run file
rounds = 50
goal_count = 100
max_rank = 16

[[devices]]                           # one kind of device; again for each
name = "phone"
count = 80_000
cores = 8
memory_available_mb = 1200
gigaflops_per_core = { median = 8, spread = 1.6 }
download_mbit_per_second = { median = 30, spread = 2.5 }
upload_mbit_per_second = { median = 8, spread = 2.5 }
examples = { median = 200, spread = 3 }
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.common import Message, Name, PositiveCount
from hetlora.messages.management import RunSettings

MAX_BYTES: Final = 1 << 20
MOST_DEVICES: Final = 10_000_000

Positive = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Spread(Message):
    """A log-normal draw: half of all are below `median`; of three, two are within a factor of `spread`."""

    median: Positive
    spread: float = Field(default=1, ge=1, le=100)


def _of_number(told: Any) -> Any:
    return {"median": told} if isinstance(told, (int, float)) and not isinstance(told, bool) else told


Drawn = Annotated[Spread, BeforeValidator(_of_number)]


class Availability(Message):
    """When a device may work: on its charger, idle, on a network that costs nothing.

    Sessions begin as a Poisson process whose rate goes up and down with the hour, and last a log-normal time.
    That four times as many devices are there at the best hour as at the worst, and that 6 to 10 of 100 drop
    out, Bonawitz et al. (arXiv 1902.01046, section 9 and appendix A) tell of Google's fleet.
    """

    share: float = Field(default=0.1, gt=0, lt=1, description="of a device's time, in the mean")
    session_minutes: Drawn = Spread(median=40, spread=3)
    peak_hour: float = Field(default=2, ge=0, lt=24, description="of local time")
    peak_over_trough: float = Field(default=4, ge=1, le=1000)
    time_zones_hours: float = Field(
        default=3, ge=0, le=24, description="devices' local times are spread evenly over so many hours"
    )
    spread_between_devices: float = Field(
        default=2, ge=1, le=100, description="of the rate of sessions, log-normal"
    )

    @property
    def swing(self) -> float:
        """a of 1 + a cos(t), of which the best hour has `peak_over_trough` times the worst."""
        return (self.peak_over_trough - 1) / (self.peak_over_trough + 1)

    @property
    def best_share(self) -> float:
        """Of the devices, at the peak."""
        return self.share * (1 + self.swing)

    @model_validator(mode="after")
    def _leaves_time_without(self) -> Self:
        if self.best_share >= 1:
            raise ValueError(
                f"at the peak {self.best_share:.2f} of all devices would be there; lower `share`"
            )
        return self


class DeviceKind(Message):
    """Devices that are alike but for what is drawn for each."""

    name: Name
    count: int = Field(strict=True, ge=1, le=MOST_DEVICES)
    cores: PositiveCount
    memory_available_mb: Drawn
    gigaflops_per_core: Drawn
    download_mbit_per_second: Drawn
    upload_mbit_per_second: Drawn
    examples: Drawn = Spread(median=200, spread=3)
    traffic_mb_per_round: Positive | None = None
    dropout: Share = Field(default=0.08, description="of the trainings: those that end without a word")
    step_seconds_spread: float = Field(
        default=1.2, ge=1, le=100, description="of what a step takes over its forecast, log-normal"
    )


class ServiceSettings(Message):
    """What the operator of the service sets; see docs/settings.md."""

    check_ins_per_second: Positive = 10
    least_retry_seconds: Positive = 5
    most_retry_seconds: Positive = 6 * 3600


class TrainingFor(Message):
    """What devices train on for real; of `intents` every device is a client, `personas` are twenty."""

    task: Literal["intents", "personas"]
    data: str = Field(description="the folder of the data set")
    backend: Literal["processes", "ray"] = "processes"
    workers: int = Field(default=2, strict=True, ge=1, le=1024)
    ray_address: str | None = Field(default=None, description="of a cluster; one is started if left out")
    score_every: int = Field(default=5, strict=True, ge=1, description="rounds")


class FleetFile(Message):
    """What a fleet file says."""

    seed: int = Field(default=0, strict=True, ge=0)
    bundle: str | None = Field(default=None, description="a folder; the task's own if devices train")
    training: TrainingFor | None = None
    days: Positive = Field(default=30, description="the simulation ends then, whether the run has or not")
    tick_seconds: Positive = Field(default=15, description="how often the service's worker looks for work")
    run: RunSettings
    availability: Availability = Availability()
    service: ServiceSettings = ServiceSettings()
    devices: tuple[DeviceKind, ...] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _has_one_bundle(self) -> Self:
        if (self.bundle is None) == (self.training is None):
            raise ValueError("either bundle or training says what is trained")
        return self

    @model_validator(mode="after")
    def _names_each_kind_once(self) -> Self:
        if len({kind.name for kind in self.devices}) < len(self.devices):
            raise ValueError("two kinds of devices have one name")
        return self


def read_fleet_file(path: Path) -> FleetFile:
    """Read and check a fleet file.

    Raises:
        SettingsError: it cannot be read, is no such file, or a field does not fit: which, and why.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError("the fleet file cannot be read", got=f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise SettingsError("the fleet file is too long", got=f"{len(data)} bytes", expected=f"{MAX_BYTES}")
    try:
        return FleetFile.model_validate(tomllib.loads(data.decode()))
    except ValidationError as error:
        raise SettingsError(
            f"{path} is no fleet file",
            got=faults_in_words(error.errors()),
            expected=f"the fields {', '.join(FleetFile.model_fields)}",
        ) from error
    except ValueError as error:
        raise SettingsError(f"{path} is no TOML", got=error) from error
