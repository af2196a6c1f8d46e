from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from benchmarks.service.superlink import BEGUN, OUT, SuperLinkPlan, write_app


def test_flower_app_has_all_that_its_rounds_ask_for(tmp_path: Path) -> None:
    plan = SuperLinkPlan(nodes=5, rounds=3, goal_count=2, features=64, rank=4)
    write_app(tmp_path / "app", plan, tmp_path)
    settings = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert settings["config"] == {
        "begun": str(tmp_path / BEGUN),
        "out": str(tmp_path / OUT),
        "nodes": 5,
        "rounds": 3,
        "goal_count": 2,
        "features": 64,
        "rank": 4,
    }
    for kind in ("serverapp", "clientapp"):
        module, name = settings["components"][kind].split(":")
        tree = ast.parse((tmp_path / "app" / f"{module.replace('.', '/')}.py").read_text())
        assigned = [
            target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
        ]  # type: ignore[attr-defined]
        assert name in assigned
    asked = {
        node.slice.value
        for node in ast.walk(ast.parse((tmp_path / "app/fleetapp/server.py").read_text()))
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "config"
        and isinstance(node.slice, ast.Constant)
    }
    assert asked == set(settings["config"])
