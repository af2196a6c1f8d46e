"""Weights come out of their files in float32, a few rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from export.source.weight_files import WeightFiles


def test_weight_is_read_in_blocks_of_whole_rows(tmp_path: Path) -> None:
    matrix = torch.arange(15, dtype=torch.float32).reshape(5, 3)
    save_file({"m": matrix.bfloat16(), "v": matrix[0], "s": torch.tensor(2.0)}, tmp_path / "w.safetensors")
    files = WeightFiles([tmp_path / "w.safetensors"], "", block_numbers=7)
    blocks = [*files.read("m")]
    # 7 numbers hold two rows of three; 0 to 14 are exact in bfloat16.
    assert [block.shape for block in blocks] == [(2, 3), (2, 3), (1, 3)]
    assert all(block.dtype == np.float32 for block in blocks)
    assert np.concatenate(blocks).tolist() == matrix.tolist()
    assert [block.tolist() for block in files.read("v")] == [[0, 1, 2]]
    assert [block.tolist() for block in files.read("s")] == [2.0]


def test_row_wider_than_a_block_is_read_whole(tmp_path: Path) -> None:
    save_file({"m": torch.ones(2, 9)}, tmp_path / "w.safetensors")
    files = WeightFiles([tmp_path / "w.safetensors"], "", block_numbers=4)
    assert [block.shape for block in files.read("m")] == [(1, 9), (1, 9)]
