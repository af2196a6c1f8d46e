"""A run's rule, server optimizer and defence in words."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.cli.rule_options import (
    DEFENCES,
    OPTIMIZERS,
    RULES,
    choices_in_words,
    defence_of,
    rule_of,
    server_optimizer_of,
)
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
        ("raflora", ["levels=[1,2,4]"], RaFloraRule(levels=(1, 2, 4))),
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
        ("rbla", ["quorum"], "--rule-option; got quorum; expected key=value"),
        ("rbla", ["quorum=0"], "--rule rbla does not take this; got quorum: "),
        ("rbla", ["quorum=many"], "--rule rbla does not take this; got quorum: "),
        ("rbla", ["quorum=" + 5000 * "9"], "--rule rbla does not take this; got quorum: "),
        ("rbla", ["shrinkage=-1"], "expected shrinkage: 0 to 1000000"),
        ("hetlora", ["weights=layer"], "weights: Input should be 'model' or 'module'"),
    ],
)
def test_rule_that_cannot_be_meant_is_refused_with_what_can(name: str, options: list[str], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rule_of(name, options)
    assert told in str(caught.value)


@pytest.mark.parametrize("levels", ["4", "1,2,4", "[1,two]", "[0]", "all"])
def test_list_that_is_written_otherwise_is_refused_with_an_example(levels: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rule_of("raflora", [f"levels={levels}"])
    assert str(caught.value).endswith("each 1 or more, such as --rule-option levels=[1,2,4]")


def test_optimizers_and_defences_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(SettingsError, match="--server-optimizer has no such value; got sgd"):
        server_optimizer_of("sgd", [])
    with pytest.raises(SettingsError, match="--optimizer-option without --server-optimizer"):
        server_optimizer_of(None, ["momentum=0.5"])
    with pytest.raises(SettingsError, match="--defence has no such value; got wall"):
        defence_of("wall", False, [])
    with pytest.raises(SettingsError, match="expected --defence-option trusted_device=ID"):
        defence_of("fltrust", False, [])
    with pytest.raises(SettingsError, match="hostile_share does nothing with median"):
        defence_of("median", False, ["hostile_share=0.3"])


def help_of_create() -> str:
    """Without line breaks and the frame around it."""
    told = CliRunner().invoke(app, ["run", "create", "--help"], env={"COLUMNS": "200"}).stdout
    return " ".join(told.replace("│", " ").split())


def test_help_names_every_rule_optimizer_and_defence() -> None:
    told = help_of_create()
    for name in (*RULES, *OPTIMIZERS, *DEFENCES):
        assert name in told


def test_help_says_where_constants_are_told() -> None:
    assert (
        "hetlora run rules tells the constants of rules, server optimizers and defences" in help_of_create()
    )


def test_help_says_which_defence_has_which_option() -> None:
    told = help_of_create()
    for option in Defence.model_fields.keys() - {"method", "clip"}:
        assert f"{option} (" in told
    assert "hostile_share (krum, multi_krum, trimmed_mean)" in told
    assert "trusted_device (fltrust)" in told


def listed() -> list[dict[str, Any]]:
    """What `hetlora run rules --json` lists."""
    told = json.loads(CliRunner().invoke(app, ["run", "rules", "--json"]).stdout)
    return list(told["items"])


def test_rules_optimizers_and_defences_are_listed() -> None:
    found = [(own["role"], own["name"]) for own in listed()]
    assert found == [
        *(("rule", name) for name in RULES),
        *(("server_optimizer", name) for name in OPTIMIZERS),
        *(("defence", name) for name in DEFENCES),
    ]


def test_listed_options_are_those_that_a_name_uses() -> None:
    options = {own["name"]: {option["name"] for option in own["options"]} for own in listed()}
    for name, kind in RULES.items():
        assert options[name] == kind.model_fields.keys() - {"name"}
    assert options["adam"] == {"learning_rate", "beta1", "beta2", "epsilon"}
    assert options["adagrad"] == {"learning_rate", "beta1", "epsilon"}
    assert options["none"] == {"clip", "clip_factor", "quorum"}
    assert options["krum"] == {"clip", "clip_factor", "hostile_share", "max_updates", "quorum"}
    assert options["median"] == {"clip", "clip_factor", "max_updates", "quorum"}
    assert options["fltrust"] == {"clip_factor", "quorum", "trusted_device"}


def test_every_listed_option_has_a_meaning_a_range_and_a_default_that_it_takes() -> None:
    parsed = {"rule": rule_of, "server_optimizer": server_optimizer_of}
    for choice in choices_in_words():
        assert choice.meaning.endswith(".")
        for option in choice.options:
            assert option.range
            assert option.meaning
            if choice.role in parsed:
                parsed[choice.role](choice.name, [f"{option.name}={option.default_in_words}"])


@pytest.mark.parametrize(
    ("name", "option", "default", "limits"),
    [
        ("rbla", "quorum", 1, "1 or more"),
        ("rbla", "weights", "examples", "examples | uniform"),
        ("raflora", "levels", [], "list, each 1 or more"),
        ("residual_exact", "state_rank", None, "1 or more or null"),
        ("residual_exact", "fold", False, "true | false"),
        ("momentum", "momentum", 0.9, "0 to below 1"),
        ("yogi", "epsilon", 0.001, "1e-12 to 1"),
        ("krum", "clip_factor", 2.0, "0.001 to 1000000"),
    ],
)
def test_listed_options_come_with_default_and_range(
    name: str, option: str, default: object, limits: str
) -> None:
    (choice,) = (own for own in listed() if own["name"] == name)
    (found,) = (own for own in choice["options"] if own["name"] == option)
    assert (found["default"], found["range"]) == (default, limits)


def test_table_has_a_line_for_every_option() -> None:
    lines = CliRunner().invoke(app, ["run", "rules"]).stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    expected: list[list[str]] = []
    for choice in choices_in_words():
        expected.append([choice.name, "", "", "", choice.meaning])
        expected += [["", own.name, own.default_in_words, own.range] for own in choice.options]
    assert [row[: len(wanted)] for row, wanted in zip(rows, expected, strict=True)] == expected
