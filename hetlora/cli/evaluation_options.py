"""The options of `hetlora run create` that have adapter versions evaluated on devices."""

from __future__ import annotations

from hetlora.errors import SettingsError
from hetlora.messages.evaluation import MINIMUM_REPORTS, EvaluationSettings


def evaluation_of(
    every_rounds: int | None, devices: int | None, window_seconds: float, *, goal_count: int
) -> EvaluationSettings | None:
    """The evaluation that is asked for, if any; by default of as many devices as the goal counts.

    Raises:
        SettingsError: devices without an evaluation, or an evaluation of one device.
    """
    if every_rounds is None:
        if devices is not None:
            raise SettingsError("--evaluation-devices without --evaluate-every", got=devices)
        return None
    wanted = devices or goal_count
    if wanted < 2:
        raise SettingsError(
            "an evaluation of one device would tell that device's own figures",
            got=f"{wanted} device",
            expected="--evaluation-devices of 2 or more",
        )
    return EvaluationSettings(
        every_rounds=every_rounds,
        devices=wanted,
        minimum_reports=min(MINIMUM_REPORTS, wanted),
        window_seconds=window_seconds,
    )
