"""Processes of this benchmark: scripts that are given a training to do, in a file."""

from __future__ import annotations

import json
from pathlib import Path
from sys import executable
from typing import Any

from benchmarks.device.section import Setting
from benchmarks.harness import run_measured
from benchmarks.step_shapes import Shape
from edge_sdk.planning.forecast import StepPlan
from hetlora.bundle import Bundle
from hetlora.manifest import reads_images


def run_process(
    name: str, bundle: Bundle, rank: int, shape: Shape, setting: Setting, *, steps: int, **more: Any
) -> dict[str, Any]:
    """What `<name>_process.py` has to tell of a training."""
    config = config_file(bundle, rank, shape, setting, steps=steps, **more)
    return run_measured([executable, script(name), config]).last_json()


def batch_in_words(bundle: Bundle, shape: Shape) -> str:
    """The batch of a row: texts x tokens, or how many pictures."""
    return str(shape.batch) if reads_images(bundle.manifest.task) else str(shape)


def step_plan(bundle: Bundle, shape: Shape, rank: int, micro_batch: int | None = None) -> StepPlan:
    """A step as the planner has it, over the whole batch at once if not in parts of `micro_batch`."""
    tokens = 1 if reads_images(bundle.manifest.task) else min(shape.tokens, bundle.manifest.max_tokens)
    return StepPlan(shape.batch, tokens, rank, micro_batch or shape.batch)


def script(name: str) -> Path:
    """Where the script of a process lies."""
    return Path(__file__).parent / f"{name}_process.py"


def config_file(
    bundle: Bundle, rank: int, shape: Shape, setting: Setting, *, steps: int, **more: Any
) -> Path:
    """A file that has a `benchmarks.device.training.Case`, the folder to work in, and what else is given."""
    manifest = bundle.manifest
    tokens = manifest.max_tokens if reads_images(manifest.task) else min(shape.tokens, manifest.max_tokens)
    config = {
        "bundle": str(bundle.folder.absolute()),
        "rank": rank,
        "batch": shape.batch,
        "tokens": tokens,
        "threads": setting.threads,
        "steps": steps,
        "seed": setting.seed,
        "work": str(setting.work),
        "clock": setting.clock,
        **more,
    }
    path = setting.work / "training.json"
    path.write_text(json.dumps(config))
    return path
