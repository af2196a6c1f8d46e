"""What each package exports, seen by a fresh interpreter: one right way to import, and a light one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [
    name
    for name in ("hetlora", "export", "edge_sdk", "aggregator_service")
    if (ROOT / name / "__init__.py").exists()
]
# Libraries of one part only: importing a package must not need, nor wait for, any of them.
HEAVY = {
    "torch",
    "transformers",
    "optimum",
    "onnx",
    "onnxruntime",
    "fastapi",
    "sqlalchemy",
    "httpx",
    "matplotlib",
}
# The SDK takes tenths of a second in an app's start: by itself it loads none of what it needs to work either.
HEAVY_OF = {"edge_sdk": HEAVY | {"numpy", "pydantic", "tokenizers", "cryptography", "sqlite3", "psutil"}}
LOOK = """
import importlib, json, sys, types
package = importlib.import_module(sys.argv[1])
loaded = sorted(sys.modules)
exported = list(getattr(package, "__all__", []))
members = {name: getattr(package, name, None) for name in exported}
print(json.dumps({
    "name": package.__name__,
    "file": package.__file__,
    "documented": bool(package.__doc__),
    "loaded": loaded,
    "exported": exported,
    "absent": [
        name for name, member in members.items() if member is None or isinstance(member, types.ModuleType)
    ],
    "undocumented": [name for name, member in members.items() if callable(member) and not member.__doc__],
    "unexported": sorted(
        name for name, member in vars(package).items()
        if not name.startswith("_") and name not in members
        and getattr(member, "__module__", "").split(".")[0] in ("hetlora", sys.argv[1])
    ),
}))
"""


@pytest.fixture(scope="module", params=PACKAGES)
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a fresh interpreter sees in one package."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK, request.param],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found["file"]) == ROOT / request.param / "__init__.py"
    return found


def test_all_names_exactly_the_public_members(seen: dict[str, Any]) -> None:
    assert len(set(seen["exported"])) == len(seen["exported"])
    assert seen["absent"] == []
    assert seen["unexported"] == []


def test_package_and_its_public_members_are_documented(seen: dict[str, Any]) -> None:
    assert seen["documented"]
    assert seen["undocumented"] == []


def test_import_alone_loads_no_heavy_library(seen: dict[str, Any]) -> None:
    heavy = HEAVY_OF.get(seen["name"], HEAVY)
    assert heavy & {name.split(".")[0] for name in seen["loaded"]} == set()
