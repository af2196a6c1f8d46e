"""Tensors that a device keeps from round to round of a run: one file for each of the newest few runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from hetlora.adapter import Tensor
from hetlora.partial_tensors import read_partial
from hetlora.stored_tensors import Tensors

KEPT_RUNS: Final = 4


def keep_tensors(folder: Path, run_id: str, data: bytes) -> None:
    """Write a safetensors file for a run; it is there whole, or as it was.

    Only the runs that wrote last keep theirs, `KEPT_RUNS` of them: a population may have several at once, and
    nobody tells a device that one has ended.
    """
    aside = folder / "incomplete"  # one name: what a killed process left is written over
    aside.write_bytes(data)
    os.replace(aside, _file(folder, run_id))
    newest = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in newest[KEPT_RUNS:]:
        path.unlink()


def kept_tensors(folder: Path, run_id: str) -> Tensors:
    """The tensors that were kept for a run; nothing in the file is trusted.

    Raises:
        OSError: there is none, or it cannot be read.
        MalformedTensors, NonFiniteValues: see `read_partial`.
    """
    return read_partial(_file(folder, run_id).read_bytes())


def fitted(kept: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A factor at another rank: its leading ranks, or zeros beyond them."""
    result = np.zeros(shape, np.float32)
    common = tuple(slice(min(sizes)) for sizes in zip(kept.shape, shape, strict=True))
    result[common] = kept[common]
    return result


def _file(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.safetensors"
