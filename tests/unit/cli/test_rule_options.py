"""A run's rule, server optimizer and defence in words."""

from __future__ import annotations

from typing import get_args

import pytest
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.cli.rule_options import DEFENCES, RULES, defence_of, rule_of, server_optimizer_of
from hetlora.errors import SettingsError
from hetlora.messages.defence import Defence
from hetlora.messages.rules import AnyRule, FlascRule, HetLoraRule, RaFloraRule, RblaRule, ResidualExactRule
from hetlora.messages.server_optimizer import ServerAdaptive, ServerMomentum


def test_every_rule_of_the_protocol_can_be_named() -> None:
    assert set(RULES.values()) == set(get_args(AnyRule))
    assert [type(rule_of(name, [])) for name in RULES] == list(RULES.values())


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("hetlora", ["weights=module"], HetLoraRule(weights="module")),
        ("rbla", ["quorum=3", "shrinkage=0.5"], RblaRule(quorum=3, shrinkage=0.5)),
        ("raflora", ["levels=[4, 8]"], RaFloraRule(levels=(4, 8))),
        ("residual_exact", ["fold=true", "state_rank=null"], ResidualExactRule(fold=True)),
        ("flasc", ["download_density=1"], FlascRule(download_density=1.0)),
    ],
)
def test_options_of_a_rule_are_read(name: str, options: list[str], rule: AnyRule) -> None:
    assert rule_of(name, options) == rule


def test_optimizers_and_defences_are_read() -> None:
    assert server_optimizer_of(None, []) is None
    assert server_optimizer_of("momentum", ["momentum=0.5"]) == ServerMomentum(momentum=0.5)
    assert server_optimizer_of("yogi", []) == ServerAdaptive(name="yogi")
    assert defence_of("none", False, []) == Defence()
    assert defence_of("krum", True, ["hostile_share=0.3"]) == Defence(
        method="krum", clip=True, hostile_share=0.3
    )


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("hetlroa", [], "--rule has no such value; got hetlroa; expected hetlora, zero_pad"),
        (
            "rbla",
            ["quorom=3"],
            "--rule rbla has no option of this name; got quorom; expected weights=examples",
        ),
        ("rbla", ["name=ffa"], "--rule rbla has no option of this name; got name"),
        ("rbla", ["quorum"], "an option of a rule; got quorum; expected key=value"),
        ("rbla", ["quorum=0"], "--rule rbla does not take this; got quorum: "),
        ("rbla", ["quorum=many"], "--rule rbla does not take this; got quorum: "),
        ("hetlora", ["weights=layer"], "weights: Input should be 'model' or 'module'"),
    ],
)
def test_rule_that_cannot_be_meant_is_refused_with_what_can(name: str, options: list[str], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rule_of(name, options)
    assert told in str(caught.value)


def test_optimizers_and_defences_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(SettingsError, match="--server-optimizer has no such value; got sgd"):
        server_optimizer_of("sgd", [])
    with pytest.raises(SettingsError, match="--optimizer-option without --server-optimizer"):
        server_optimizer_of(None, ["momentum=0.5"])
    with pytest.raises(SettingsError, match="--defence has no such value; got wall"):
        defence_of("wall", False, [])
    with pytest.raises(SettingsError, match="needs a trusted_device"):
        defence_of("fltrust", False, [])


def test_help_names_every_rule_and_defence() -> None:
    told = CliRunner().invoke(app, ["run", "create", "--help"], env={"COLUMNS": "200"}).stdout
    for name in (*RULES, *DEFENCES):
        assert name in told


def test_listed_rules_come_with_their_constants() -> None:
    told = CliRunner().invoke(app, ["run", "rules"]).stdout
    for name, kind in RULES.items():
        (line,) = (line for line in told.splitlines() if line.startswith(f"│ {name} "))
        for option in kind.model_fields.keys() - {"name"}:
            assert f"{option}=" in line
