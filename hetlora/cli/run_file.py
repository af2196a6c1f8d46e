"""Run files: a run as a TOML or YAML file that can be reviewed, kept and applied again.

name = "intents-12"             # unique in the population: applied twice, it is one run
population = "keyboards"
bundle = "bundle/"              # a folder, or the digest of a published bundle

[settings]                      # `RunSettings`; what is left out has its default
goal_count = 20
max_rank = 16
rule = { name = "rbla", quorum = 3 }
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from hetlora.cli.parts import part
from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.common import Message, Name
from hetlora.messages.management import RunSettings, RunStatus

MAX_BYTES: Final = 1 << 20
YAML: Final = (".yaml", ".yml")
NULL: Final = "null"  # TOML has none


class RunFile(Message):
    """What a run file says; `bundle` is a folder or a digest, and counts as the digest that it comes to."""

    name: Name
    population: Name
    bundle: str
    settings: RunSettings


def read_run_file(path: Path) -> RunFile:
    """Read and check a run file; one that ends in .yaml or .yml is YAML, any other TOML.

    Raises:
        SettingsError: it cannot be read, is no such file, or a field does not fit: which, and why.
        DependencyMissing: YAML, without what reads it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError("the run file cannot be read", got=f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise SettingsError("the run file is too long", got=f"{len(data)} bytes", expected=f"{MAX_BYTES}")
    return parse_run_file(data, path)


def parse_run_file(data: bytes, path: Path) -> RunFile:
    """`read_run_file`, of bytes; `path` says which language they are in, and names them in errors."""
    values = _values(data, path)
    if not isinstance(values, dict):
        raise SettingsError(f"{path} is no run file", got=type(values).__name__, expected="keys and values")
    try:
        return RunFile.model_validate(
            {key: _with_nulls(own) if key == "settings" else own for key, own in values.items()}
        )
    except ValidationError as error:
        # A word that was mistyped comes first: the field that it was meant for is missing because of it.
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise SettingsError(
            f"{path} is no run file",
            got=faults_in_words(faults),
            expected=f"the fields {', '.join(RunFile.model_fields)}",
        ) from error


def _values(data: bytes, path: Path) -> Any:
    try:
        text = data.decode()
        return _yaml(text) if path.suffix in YAML else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # or nested without end
        language = "YAML" if path.suffix in YAML else "TOML"
        raise SettingsError(f"{path} is no {language}", got=error) from error


def _yaml(text: str) -> Any:
    with part("run-files"):
        import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def run_file_of(run: RunStatus, name: str | None = None) -> str:
    """The TOML of a run as it is, with every setting: what a file would say that makes the same run."""
    with part("run-files"):
        import tomli_w

    own = run.settings.model_dump(mode="json")
    without = RunSettings.model_validate(_storable(own, {})).model_dump(mode="json")
    values = {
        "name": name or run.name or f"run-{run.run_id}".lower(),
        "population": run.population,
        "bundle": run.bundle,
        "settings": _storable(own, without),
    }
    return tomli_w.dumps(values)


def _storable(value: Any, without: Any) -> Any:
    """Settings as TOML can hold them: None is left out, or `NULL` where its default is something else.

    Args:
        without: what the settings come to where every None is left out.
    """
    if isinstance(value, dict):
        others = without if isinstance(without, dict) else {}
        return {
            key: _storable(own, others.get(key))
            for key, own in value.items()
            if own is not None or others.get(key) is not None
        }
    return NULL if value is None else value


def _with_nulls(value: Any) -> Any:
    """Settings as a file has them, with what `NULL` stands for."""
    if isinstance(value, dict):
        return {key: _with_nulls(own) for key, own in value.items()}
    return None if value == NULL else value
