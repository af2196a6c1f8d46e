"""What rules, server optimizers and defences can be set to."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from pydantic import ValidationError

from hetlora.messages.common import Message
from hetlora.messages.defence import METHODS, Defence, Method
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import (
    AnyRule,
    FedExRule,
    FedLoruRule,
    FloraRule,
    LoraA2Rule,
    LoraFairRule,
    RblaRule,
    ResidualExactRule,
)
from hetlora.messages.server_optimizer import ServerAdaptive, ServerMomentum

MOMENTUM, ADAM = ServerMomentum(), ServerAdaptive(name="adam")
CLIP = Defence(clip=True)
OWNED = [kind() for kind in get_args(AnyRule)]
EVERYTHING = [*OWNED, MOMENTUM, ADAM, CLIP]


def changed(message: Message, **changes: object) -> Message:
    """As a service or a command reads it."""
    return type(message).model_validate_json(json.dumps(message.model_dump(mode="json") | changes))


NUMBERS = [
    pytest.param(message, key, id=f"{type(message).__name__}.{key}")
    for message in EVERYTHING
    for key, value in message
    if type(value) in (int, float) or key == "state_rank"
]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"nan"', '"inf"'])
@pytest.mark.parametrize(("message", "key"), NUMBERS)
def test_no_setting_is_nan_or_infinite(message: Message, key: str, number: str) -> None:
    text = json.dumps(message.model_dump(mode="json") | {key: "HERE"}).replace('"HERE"', number)
    with pytest.raises(ValidationError) as caught:
        type(message).model_validate_json(text)
    assert {fault["loc"] for fault in caught.value.errors()} <= {(key,), ()}
    with pytest.raises(ValidationError):
        type(message).model_validate(dict(message) | {key: float(number.strip('"'))})


@pytest.mark.parametrize(
    ("message", "key", "least", "most"),
    [
        (MOMENTUM, "learning_rate", 1e-9, 100),
        (ADAM, "learning_rate", 1e-9, 100),
        (ADAM, "epsilon", 1e-12, 1),
        (CLIP, "clip_factor", 1e-3, 1e6),
        (RblaRule(), "shrinkage", 0, 1e6),
        (LoraFairRule(), "penalty", 1e-9, 1e6),
        (LoraA2Rule(), "lora_B_rate", 1e-3, 1e3),
        (ResidualExactRule(), "server_rate", 1e-6, 2),
        (FloraRule(), "frozen_rank", 1, 1_000_000),
        (FedExRule(), "frozen_rank", 1, 1_000_000),
        (FedLoruRule(), "frozen_rank", 1, 1_000_000),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    message: Message, key: str, least: float, most: float
) -> None:
    for fits in (least, most):
        assert getattr(changed(message, **{key: fits}), key) == fits
    whole = isinstance(most, int) and isinstance(least, int)
    for absurd in (-1, 10**9) if whole else (-1.0, least / 2 - 1e-300, 2 * most, 1e300):
        with pytest.raises(ValidationError):
            changed(message, **{key: absurd})


def test_settings_are_read_back_as_they_are_stored() -> None:
    optimizers = [None, MOMENTUM, *(ServerAdaptive(name=name) for name in ("adagrad", "adam", "yogi"))]
    defences = [
        Defence(method=method, trusted_device="own" if method == "fltrust" else None) for method in METHODS
    ]
    for rule in OWNED:
        for optimizer in optimizers:
            settings = RunSettings(goal_count=9, max_rank=4, rule=rule, server_optimizer=optimizer)
            assert RunSettings.model_validate_json(settings.model_dump_json()) == settings
    for defence in defences:
        settings = RunSettings(goal_count=9, max_rank=4, defence=defence)
        assert RunSettings.model_validate_json(settings.model_dump_json()) == settings


USED: dict[
    str, set[str]
] = {  # of hostile_share, max_updates, clip and trusted_device, as `defend` reads them
    "none": {"clip"},
    "krum": {"clip", "hostile_share", "max_updates"},
    "multi_krum": {"clip", "hostile_share", "max_updates"},
    "geometric_median": {"clip", "max_updates"},
    "fltrust": {"trusted_device"},
    "trimmed_mean": {"clip", "hostile_share", "max_updates"},
    "median": {"clip", "max_updates"},
}
OTHER = {"clip": True, "hostile_share": 0.3, "max_updates": 100, "trusted_device": "own"}


@pytest.mark.parametrize("option", OTHER)
@pytest.mark.parametrize("method", METHODS)
def test_option_that_the_method_does_not_use_is_refused_with_those_that_do(method: str, option: str) -> None:
    settings = {"method": method, option: OTHER[option]}
    if method == "fltrust":
        settings["trusted_device"] = "own"
    if option in USED[method]:
        assert getattr(Defence.model_validate(settings), option) == OTHER[option]
        return
    with pytest.raises(ValidationError, match=f"{option} does nothing with {method}") as caught:
        Defence.model_validate(settings)
    users = [name for name in METHODS if option in USED[name]]
    (fault,) = caught.value.errors()
    assert set(fault["msg"].partition("it belongs to ")[2].split(", ")) == set(users)


@pytest.mark.parametrize("method", METHODS)
def test_clip_factor_is_for_clipping_and_for_fltrust(method: Method) -> None:
    if method == "fltrust":
        assert Defence(method=method, trusted_device="own", clip_factor=3).clip_factor == 3
        return
    assert Defence(method=method, clip=True, clip_factor=3).clip_factor == 3
    with pytest.raises(ValidationError, match="clip_factor does nothing without clip"):
        Defence(method=method, clip_factor=3)


def test_quorum_goes_with_every_method() -> None:
    trusted = {"fltrust": "own"}
    for method in METHODS:
        assert Defence(method=method, quorum=3, trusted_device=trusted.get(method)).quorum == 3


def test_fltrust_needs_its_trusted_device() -> None:
    with pytest.raises(ValidationError, match="fltrust needs a trusted_device"):
        Defence(method="fltrust")


def test_adagrad_has_no_decay_of_squares() -> None:
    assert ServerAdaptive(name="adagrad", beta2=0.99).beta2 == 0.99  # as it is stored
    with pytest.raises(ValidationError, match="beta2 does nothing with adagrad; it belongs to adam, yogi"):
        ServerAdaptive(name="adagrad", beta2=0.5)


def test_every_method_has_its_meaning() -> None:
    assert tuple(METHODS) == get_args(Method)
