"""What a kill costs a device: the time to go on from its checkpoint, and the steps since that one."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from sys import executable
from typing import Any, Final

from rich.table import Table

from benchmarks.device.process import batch_in_words, config_file, run_process, script
from benchmarks.device.section import Section, Setting
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle
from hetlora.errors import HetloraError

# Of a round that is killed: so many checkpoints are waited for, and so long.
CHECKPOINTS: Final = 4
MOST_SECONDS: Final = 60.0
_STEPS: Final = 100_000


@dataclass(frozen=True, slots=True)
class ResumeRow:
    """A round that was killed, at one rank and batch.

    `resume_steps`: from opening the folder to the end of the first new step, less what a round takes that
    begins, in steps; `restore_steps` is the part of it that reads the checkpoint. `steps_between` checkpoints
    are the most that a kill loses, half of them on average; None where fewer than two were due in a minute.
    """

    model: str
    rank: int
    shape: str
    step_seconds: float
    checkpoint_bytes: int
    resume_steps: float
    restore_steps: float
    steps_between: float | None


def resume_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Kill a round of every bundle at the last rank, with the first batch and the last."""
    rows = []
    for name, bundle in setting.bundles.items():
        for shape in dict.fromkeys((shapes[0], shapes[-1])):
            setting.tell(f"{name} {shape}: a round that is killed")
            rows.append(_measured(name, bundle, ranks[-1], shape, setting))
    between = [row.steps_between for row in rows if row.steps_between is not None]
    figures = {
        "resume_steps_max": max(row.resume_steps for row in rows),
        "steps_between_checkpoints_max": max(between, default=None),
        "resume": [asdict(row) for row in rows],
    }
    return Section(figures, _table(rows))


def resume_row(
    model: str,
    rank: int,
    shape: str,
    trained: Mapping[str, Any],
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
) -> ResumeRow:
    """What the killed process told, and those that went on and began anew, in pairs.

    Raises:
        HetloraError: one did not go on from the checkpoint.
    """
    if not all(gone_on["steps_before"] for gone_on, _ in pairs):
        raise HetloraError(f"{model}: a round that was killed began anew")
    step_seconds, kept = trained["step_seconds"], trained["kept_after"]
    more = statistics.median(gone_on["seconds"] - begun["seconds"] for gone_on, begun in pairs)
    restoring = statistics.median(gone_on["restore_seconds"] for gone_on, _ in pairs)
    return ResumeRow(
        model,
        rank,
        shape,
        round(step_seconds, 4),
        trained["checkpoint_bytes"],
        round(more / step_seconds, 3),
        round(restoring / step_seconds, 3),
        statistics.median(after - before for before, after in pairwise(kept)) if len(kept) > 1 else None,
    )


def _measured(name: str, bundle: Bundle, rank: int, shape: Shape, setting: Setting) -> ResumeRow:
    root = setting.work / "resume"
    taken, killed = root / "taken", root / "killed"

    def told(act: str, folder: Path) -> dict[str, Any]:
        return run_process("resume", bundle, rank, shape, setting, steps=_STEPS, act=act, folder=str(folder))

    def gone_on(origin: Path) -> dict[str, Any]:
        folder = shutil.copytree(origin, root / "copy")
        try:
            return told("go_on", folder)
        finally:
            shutil.rmtree(folder)

    taken.mkdir(mode=0o700, parents=True)
    told("take", taken)
    shutil.copytree(taken, killed)
    more = {"folder": str(killed), "act": "train", "checkpoints": CHECKPOINTS, "most_seconds": MOST_SECONDS}
    trained = _killed(config_file(bundle, rank, shape, setting, steps=_STEPS, **more))
    pairs = [(gone_on(killed), gone_on(taken)) for _ in range(setting.starts)]
    shutil.rmtree(root)
    return resume_row(name, rank, batch_in_words(bundle, shape), trained, pairs)


def _killed(config: Path) -> dict[str, Any]:
    """What a training tells of itself right before it is killed."""
    with subprocess.Popen(
        [executable, script("resume"), config],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        process.kill()
        if not line:
            raise HetloraError("resume_process.py failed", got=process.stderr.read()[-400:].strip())
    told: dict[str, Any] = json.loads(line)
    return told


def _table(rows: Sequence[ResumeRow]) -> Table:
    table = Table(title="Going on after a kill", title_justify="left")
    table.add_column("model")
    headings = (
        "rank",
        "batch",
        "step ms",
        "checkpoint MB",
        "resume, steps",
        "of it reading",
        "steps a checkpoint",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            str(row.rank),
            row.shape,
            f"{1000 * row.step_seconds:.1f}",
            f"{row.checkpoint_bytes / 1e6:.1f}",
            f"{row.resume_steps:.2f}",
            f"{row.restore_steps:.2f}",
            "-" if row.steps_between is None else f"{row.steps_between:g}",
        )
    return table
