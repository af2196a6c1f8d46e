"""Who may import whom (architecture, section 3), held on the syntax trees of all packages."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("hetlora", "export", "edge_sdk", "aggregator_service", "benchmarks", "console")
STANDARD_LIBRARY = tuple(sys.stdlib_module_names)


@dataclass(frozen=True, slots=True)
class Rule:
    """Files below `folder`, except `spared`, import nothing of `never` and, if given, only of `only`."""

    folder: str
    never: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    spared: tuple[str, ...] = ()


ABOVE = ("benchmarks", "hetlora.cli")
EXPORT_STEPS = tuple(
    f"export.{step}"
    for step in (
        *("graphs", "source", "training", "cost", "plain", "executorch", "peft"),
        *("graph_files", "bundle_writer", "finished"),
    )
)
SERVICE_FOLDERS = (
    *("observability", "storage", "operators", "pace", "artifacts"),
    *("privacy", "rounds", "registry", "devices", "assignments", "rollouts", "screens", "worker", "api"),
)
# Folders of the SDK and modules that stand between them, lowest first; below all of them lie others.
EDGE_FOLDERS = (
    *("probe", "examples", "runtimes", "batching", "training", "adapters", "planning"),
    *("identity", "transport", "conditions", "events", "masking", "session", "client"),
)
BELOW_EDGE_FOLDERS = ("units", "freshness", "database_file", "defaults", "device_database", "folder")


def edge_rules() -> Iterator[Rule]:
    """Each part of the SDK imports of those before it alone."""
    for place, name in enumerate((*BELOW_EDGE_FOLDERS, *EDGE_FOLDERS)):
        later = EDGE_FOLDERS[max(place + 1 - len(BELOW_EDGE_FOLDERS), 0) :]
        never = tuple(f"edge_sdk.{other}" for other in later)
        yield Rule(f"edge_sdk/{name}", never=never)
        yield Rule(f"edge_sdk/{name}.py", never=never)


def above(folder: str) -> tuple[str, ...]:
    """The folders of the service that come after one, and what puts all together."""
    later = SERVICE_FOLDERS[SERVICE_FOLDERS.index(folder) + 1 :]
    return tuple(f"aggregator_service.{name}" for name in (*later, "app", "server"))


RULES = (
    Rule(
        "hetlora",
        never=("hetlora.cli",),
        only=(*STANDARD_LIBRARY, "numpy", "safetensors", "pydantic", "hetlora"),
        spared=("hetlora/cli", "hetlora/testing", "hetlora/masking"),
    ),
    # Secrets of a round: for devices and the service, which have cryptography anyway.
    Rule(
        "hetlora/masking",
        never=("hetlora.cli", "hetlora.testing"),
        only=(*STANDARD_LIBRARY, "numpy", "pydantic", "hetlora", "cryptography"),
    ),
    # The fake service checks signatures.
    Rule(
        "hetlora/testing",
        never=("hetlora.cli",),
        only=(*STANDARD_LIBRARY, "numpy", "safetensors", "pydantic", "hetlora", "cryptography"),
    ),
    Rule("export", never=("edge_sdk", "aggregator_service", *ABOVE)),
    # A model flows from its source through graphs to training graphs; weights join them at the end.
    Rule("export/graphs", never=EXPORT_STEPS[1:]),
    Rule("export/source", never=EXPORT_STEPS[2:]),
    Rule("export/weights", never=("export.source", *EXPORT_STEPS[2:])),
    Rule("export/training", never=("export.weights", *EXPORT_STEPS[3:])),
    Rule("export/cost", never=("export.source", "export.weights", *EXPORT_STEPS[4:])),
    Rule("export/plain", never=("export.weights", *EXPORT_STEPS[1:4], *EXPORT_STEPS[5:])),
    Rule(
        "edge_sdk",
        never=(
            "export",
            "aggregator_service",
            "optimum",
            "onnxruntime.training",
            *ABOVE,
        ),
    ),
    # ExecuTorch's Python bindings take and give torch's tensors.
    Rule("edge_sdk", never=("executorch",), spared=("edge_sdk/runtimes/executorch_library.py",)),
    Rule(
        "edge_sdk",
        never=("torch",),
        spared=("edge_sdk/runtimes/executorch_library.py", "edge_sdk/runtimes/pytorch_library.py"),
    ),
    Rule(
        "edge_sdk",
        never=("transformers", "peft", "accelerate"),
        spared=("edge_sdk/runtimes/pytorch_library.py",),
    ),
    Rule("edge_sdk", never=("onnxruntime",), spared=("edge_sdk/runtimes/onnx_library.py",)),
    *edge_rules(),
    # A client of `/management/v1`, by the same connection as the command line.
    Rule(
        "console",
        only=(
            *STANDARD_LIBRARY,
            "nicegui",
            "fastapi",
            "starlette",
            "uvicorn",
            "pydantic",
            "console",
            "hetlora",
        ),
    ),
    Rule("aggregator_service", never=("export", "edge_sdk", "torch", *ABOVE)),
    Rule(
        "aggregator_service/aggregation",
        never=("time", "datetime"),
        only=(
            *STANDARD_LIBRARY,
            *("numpy", "scipy", "threadpoolctl", "ray", "hetlora", "aggregator_service.aggregation"),
        ),
    ),
    Rule(
        "aggregator_service/aggregation",
        never=("ray",),
        spared=("aggregator_service/aggregation/engines/ray_cluster.py",),
    ),
    # The service's folders, lowest first: each imports of those before it, and of `service` and `settings`.
    Rule("aggregator_service/observability", never=above("observability")),
    Rule("aggregator_service/storage", never=above("storage")),
    Rule("aggregator_service/operators", never=above("operators")),
    Rule("aggregator_service/pace", never=above("pace")),
    Rule("aggregator_service/artifacts", never=above("artifacts")),
    Rule("aggregator_service/privacy", never=above("privacy")),
    Rule("aggregator_service/rounds", never=above("rounds")),
    Rule("aggregator_service/registry", never=above("registry")),
    Rule("aggregator_service/devices", never=above("devices")),
    Rule("aggregator_service/assignments", never=above("assignments")),
    Rule("aggregator_service/rollouts", never=above("rollouts")),
    Rule("aggregator_service/screens", never=above("screens")),
    Rule("aggregator_service/worker", never=above("worker")),
    Rule("aggregator_service/api", never=("aggregator_service.worker", "aggregator_service.app")),
)


def imported(source: str, path: str) -> set[str]:
    """Dotted names that a module imports; `from a import b` counts as both `a` and `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, path)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def _absolute(node: ast.ImportFrom, path: str) -> str:
    package = PurePosixPath(path).parts[: -node.level] if node.level else ()
    return ".".join((*package, *(node.module.split(".") if node.module else ())))


def _called(node: ast.Call) -> str | None:
    return getattr(node.func, "attr", getattr(node.func, "id", None))


def below(path: str, folders: tuple[str, ...]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def violations(source: str, path: str) -> set[str]:
    """Which imports of one file break a rule, as `path imports name`."""
    names = imported(source, path)
    found = set()
    for rule in RULES:
        if below(path, (rule.folder,)) and not below(path, rule.spared):
            found |= {name for name in names if within(name, rule.never)}
            if rule.only is not None:
                found |= {name for name in names if not within(name, rule.only)}
    return {f"{path} imports {name}" for name in found}


def test_every_file_keeps_the_import_rules() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert ROOT / "hetlora" / "adapter.py" in files
    broken = [violations(path.read_text(), path.relative_to(ROOT).as_posix()) for path in files]
    assert set().union(*broken) == set()


def test_every_part_of_the_sdk_has_its_place_in_the_order() -> None:
    parts = {path.relative_to(ROOT / "edge_sdk").parts[0] for path in (ROOT / "edge_sdk").rglob("*.py")}
    ordered = {*EDGE_FOLDERS, *BELOW_EDGE_FOLDERS}
    assert {part.removesuffix(".py") for part in parts} - {"__init__"} == ordered


@pytest.mark.parametrize(
    ("path", "source", "name"),
    [
        ("hetlora/adapter.py", "import torch", "torch"),
        ("hetlora/adapter.py", "import hetlora.cli.main", "hetlora.cli.main"),
        ("hetlora/adapter.py", "from . import cli", "hetlora.cli"),
        ("hetlora/messages/device.py", "from ..cli import main", "hetlora.cli"),
        ("hetlora/adapter.py", "def f():\n    import edge_sdk", "edge_sdk"),
        ("hetlora/new/file.py", "from typer import Option", "typer"),
        ("hetlora/signature.py", "import cryptography", "cryptography"),
        ("hetlora/testing/door.py", "import httpx", "httpx"),
        ("export/graph.py", "from edge_sdk.runtimes import base", "edge_sdk.runtimes"),
        ("export/graph.py", "import benchmarks.harness", "benchmarks.harness"),
        ("edge_sdk/client.py", "from aggregator_service import app", "aggregator_service"),
        ("edge_sdk/client.py", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("edge_sdk/client.py", "__import__('export.bundle')", "export.bundle"),
        ("edge_sdk/client.py", "if TYPE_CHECKING:\n    from torch import Tensor", "torch"),
        ("edge_sdk/client.py", "import onnxruntime", "onnxruntime"),
        ("edge_sdk/runtimes/executorch.py", "import torch", "torch"),
        ("edge_sdk/runtimes/executorch.py", "from executorch.runtime import Runtime", "executorch.runtime"),
        ("edge_sdk/runtimes/executorch_library.py", "import executorch, export", "export"),
        ("edge_sdk/runtimes/executorch_library.py", "import peft", "peft"),
        ("edge_sdk/runtimes/pytorch.py", "from transformers import AutoModel", "transformers"),
        ("edge_sdk/runtimes/pytorch_library.py", "import executorch", "executorch"),
        ("edge_sdk/runtimes/base.py", "from onnxruntime import InferenceSession", "onnxruntime"),
        ("edge_sdk/runtimes/onnx_library.py", "from onnxruntime import training", "onnxruntime.training"),
        ("edge_sdk/runtimes/onnx_library.py", "import onnxruntime.training.api", "onnxruntime.training.api"),
        ("edge_sdk/folder.py", "from edge_sdk.probe.report import Probe", "edge_sdk.probe.report"),
        ("edge_sdk/runtimes/base.py", "import edge_sdk.training.trainer", "edge_sdk.training.trainer"),
        ("edge_sdk/adapters/index.py", "from edge_sdk import events", "edge_sdk.events"),
        ("edge_sdk/events.py", "from edge_sdk.session.visit import Visit", "edge_sdk.session.visit"),
        ("edge_sdk/session/visit.py", "def f():\n    from ..client import EdgeClient", "edge_sdk.client"),
        ("aggregator_service/app.py", "import torch.nn as nn", "torch.nn"),
        ("aggregator_service/app.py", "from edge_sdk import EdgeClient", "edge_sdk"),
        ("aggregator_service/aggregation/rules/hetlora.py", "import sqlalchemy", "sqlalchemy"),
        ("aggregator_service/aggregation/rules/hetlora.py", "from datetime import datetime", "datetime"),
        ("aggregator_service/aggregation/rules/hetlora.py", "from time import monotonic", "time"),
        (
            "aggregator_service/aggregation/tree.py",
            "from ..storage import tables",
            "aggregator_service.storage",
        ),
    ],
)
def test_forbidden_import_is_found(path: str, source: str, name: str) -> None:
    assert f"{path} imports {name}" in violations(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("hetlora/adapter.py", "import json, numpy as np\nfrom hetlora.errors import HetloraError"),
        ("hetlora/cli/main.py", "import typer, edge_sdk, aggregator_service, benchmarks.demo"),
        ("export/graph.py", "import torch, onnxruntime.training.artifacts"),
        (
            "edge_sdk/runtimes/onnx_library.py",
            "import onnxruntime\nfrom onnxruntime.capi import _pybind_state",
        ),
        ("edge_sdk/runtimes/pytorch_library.py", "import torch, transformers.models.auto, peft, accelerate"),
        ("edge_sdk/client.py", "import exporters, torchless\nfrom .runtimes import base"),
        ("edge_sdk/events.py", "from edge_sdk.adapters.index import Comparison\nimport edge_sdk.folder"),
        ("edge_sdk/probe/rates.py", "from edge_sdk.device_database import DeviceDatabase"),
        (
            "aggregator_service/rounds/rounds.py",
            "import time, sqlalchemy\nfrom hetlora.messages import device",
        ),
        ("aggregator_service/aggregation/rules/rbla.py", "import math, numpy\nfrom hetlora import Adapter"),
        ("aggregator_service/aggregation/tree.py", "from .rule import Rule\nfrom . import rule"),
        ("benchmarks/demo/stage.py", "import torch, edge_sdk, export, aggregator_service"),
        ("android_demo/anything.py", "import hetlora.cli"),
    ],
)
def test_allowed_import_passes(path: str, source: str) -> None:
    assert violations(source, path) == set()
