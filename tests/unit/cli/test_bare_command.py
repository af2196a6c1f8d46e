"""The command with no optional part of hetlora installed."""

from __future__ import annotations

import subprocess
import sys

OPTIONAL = (
    *("alembic", "cryptography", "fastapi", "matplotlib", "onnx", "onnxruntime", "optimum", "peft", "psutil"),
    *("pydantic_settings", "sqlalchemy", "stamina", "tokenizers", "torch", "transformers", "uvicorn"),
)
# None in sys.modules makes an import fail as if the package were not there.
MASKED = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r})); sys.argv = ['hetlora', *sys.argv[1:]]"
RUN = f"{MASKED}; from hetlora.cli.main import run_command; run_command()"


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_works() -> None:
    done = bare("--help")

    assert done.returncode == 0, done.stderr
    assert "export" in done.stdout


def test_missing_part_is_named_with_the_command_that_installs_it() -> None:
    done = bare("serve")

    assert done.returncode == 5
    assert "dependency_missing" in done.stderr
    assert "hetlora[service]" in done.stderr
    assert "Traceback" not in done.stderr


def test_pins_want_the_edge_part() -> None:
    done = bare("tls", "pin", "https://127.0.0.1:9")

    assert done.returncode == 5
    assert "hetlora[edge]" in done.stderr
    assert "Traceback" not in done.stderr


def test_families_of_models_are_listed() -> None:
    done = bare("export", "--list-models", "--json")

    assert done.returncode == 0, done.stderr
    assert '"gpt2"' in done.stdout
