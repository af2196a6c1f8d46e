"""The table of tested families says what the tests test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from executorch_families import EXECUTORCH_LAYERS
from tiny_families import TINY_FAMILIES, TinyFamily
from torch import nn
from transformers.pytorch_utils import Conv1D

from export.families import FAMILIES, Family
from export.quiet import quiet_libraries
from hetlora.pytorch_files import ARCHITECTURES

TESTS = Path(__file__).parents[2]
TINY = {family.configure().model_type: family for family in TINY_FAMILIES.values()}


def test_families_are_exactly_those_of_the_parity_tests() -> None:
    tested = {(architecture, family.task) for architecture, family in TINY.items()}
    listed = [(family.architecture, family.task) for family in FAMILIES]
    assert set(listed) == tested
    assert len(listed) == len(tested)


def test_families_named_for_executorch_are_those_of_its_parity_tests() -> None:
    tested = {TINY_FAMILIES[name].configure().model_type for name in EXECUTORCH_LAYERS}
    assert {family.architecture for family in FAMILIES if "executorch" in family.runtimes} == tested


def test_families_named_for_pytorch_are_those_that_devices_build() -> None:
    named = {(family.architecture, family.task) for family in FAMILIES if "pytorch" in family.runtimes}
    assert named == {(name, task) for task, names in ARCHITECTURES.items() for name in names}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.architecture)
def test_every_example_target_ends_the_name_of_a_linear_layer(family: Family) -> None:
    linear = _linear_layers(TINY[family.architecture])
    for target in family.targets:
        assert any(f".{name}".endswith(f".{target}") for name in linear), (target, linear)


def _linear_layers(tiny: TinyFamily) -> list[str]:
    with quiet_libraries():
        model = tiny.model()
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)]


def test_table_is_read_without_the_libraries_of_the_export() -> None:
    heavy = ("torch", "transformers", "onnx", "onnxruntime", "executorch")
    program = (
        "import sys, export.families; "
        f"assert not {{name.partition('.')[0] for name in sys.modules}} & set({heavy!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TESTS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
