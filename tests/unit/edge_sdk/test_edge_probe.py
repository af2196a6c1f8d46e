import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge_sdk.memory import measure_memory, peak_memory_bytes
from edge_sdk.probe import measure_capabilities, measure_matmul

MIB = 2**20


def test_measured_report_describes_this_machine(tmp_path: Path) -> None:
    report = measure_capabilities(tmp_path)
    assert report.source == "measured"
    assert 1 <= report.cores <= (os.cpu_count() or 1)
    assert 0 < report.memory_available_bytes <= report.memory_total_bytes <= psutil.virtual_memory().total
    assert 1e7 < report.matmul_flops_per_second < 1e14
    assert report.disk_free_bytes > 0


def test_rate_measured_before_is_taken_over(tmp_path: Path) -> None:
    assert measure_capabilities(tmp_path, matmul_flops_per_second=5e9).matmul_flops_per_second == 5e9


def test_rate_comes_from_the_best_try() -> None:
    # Reads of the clock: deadline, then per try the loop's look, start, end. Tries of 4 s and 2 s:
    # 2 * 32 * 64^3 operations in 2 s.
    ticks: Iterator[float] = iter([0, 1, 1, 5, 6, 6, 8, 11])
    assert measure_matmul(seconds=10, timer=lambda: next(ticks)) == 32 * 64.0**3


def test_slow_machine_gets_one_try_beyond_the_time() -> None:
    ticks: Iterator[float] = iter([0, 99, 100, 104, 105])
    assert measure_matmul(seconds=1, timer=lambda: next(ticks)) == 2 * 32 * 64.0**3 / 4


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


def _group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_group_limit_of_version_2_bounds_the_memory(tmp_path: Path, membership: Path) -> None:
    # 64 MiB allowed, 40 used, of which 10 are cached file pages: 64 - (40 - 10) = 34 MiB free.
    membership.write_text("0::/app.slice\n")
    stat = f"anon 5\ninactive_file {10 * MIB}"
    _group(tmp_path / "app.slice", memory__max=64 * MIB, memory__current=40 * MIB, memory__stat=stat)
    memory = measure_memory(membership=membership, mount=tmp_path)
    assert (memory.total_bytes, memory.available_bytes) == (64 * MIB, 34 * MIB)


def test_group_limit_of_version_1_bounds_the_memory(tmp_path: Path, membership: Path) -> None:
    membership.write_text("3:cpu:/app\n2:memory:/app\n0::/\n")
    _group(
        tmp_path / "memory/app",
        memory__limit_in_bytes=64 * MIB,
        memory__usage_in_bytes=40 * MIB,
        memory__stat=f"inactive_file 1\ntotal_inactive_file {10 * MIB}",
    )
    memory = measure_memory(membership=membership, mount=tmp_path)
    assert (memory.total_bytes, memory.available_bytes) == (64 * MIB, 34 * MIB)


def test_limit_of_a_group_above_holds_too(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/app.slice/app.service\n")
    _group(tmp_path / "app.slice", memory__max=64 * MIB, memory__current=63 * MIB)
    _group(tmp_path / "app.slice/app.service", memory__max="max", memory__current=1)
    assert measure_memory(membership=membership, mount=tmp_path).available_bytes == MIB


def test_group_beyond_its_limit_has_nothing_free(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/\n")
    _group(tmp_path, memory__max=64 * MIB, memory__current=65 * MIB)
    assert measure_memory(membership=membership, mount=tmp_path).available_bytes == 0


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_group_without_limit_leaves_the_machines_memory(tmp_path: Path, membership: Path, limit: str) -> None:
    membership.write_text("0::/\n")
    _group(tmp_path, memory__max=limit, memory__current=1)
    total = measure_memory(membership=membership, mount=tmp_path).total_bytes
    assert total == psutil.virtual_memory().total


def test_system_without_groups_has_the_machines_memory(tmp_path: Path) -> None:
    total = measure_memory(membership=tmp_path / "absent", mount=tmp_path).total_bytes
    assert total == psutil.virtual_memory().total


def test_peak_memory_counts_what_was_once_held() -> None:
    resident = psutil.Process().memory_info().rss
    block = np.ones(64 * MIB, dtype=np.uint8)
    del block
    assert peak_memory_bytes() >= resident + 60 * MIB


def test_peak_memory_of_another_process_is_its_own() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        peak = peak_memory_bytes(child.pid)
        child.kill()
    assert 0 < peak < peak_memory_bytes()


@pytest.mark.parametrize("status", ["", "Name:\tpython\nVmRSS:\t  100 kB\n"], ids=["empty", "no VmHWM"])
def test_kernel_that_keeps_no_peak_costs_only_the_peak(tmp_path: Path, status: str) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(status)
    assert 10 * MIB < peak_memory_bytes(proc=tmp_path) < peak_memory_bytes() + MIB
    assert 10 * MIB < peak_memory_bytes(proc=tmp_path / "absent") < peak_memory_bytes() + MIB
