import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge_sdk.probe.peak_memory import peak_memory_bytes, reset_peak_memory
from edge_sdk.probe.system import System

MIB = 2**20


def test_peak_memory_counts_what_was_once_held() -> None:
    if not reset_peak_memory():
        pytest.skip("this system keeps no peak that begins anew")
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
    assert 10 * MIB < peak_memory_bytes(system=System(tmp_path)) < peak_memory_bytes() + MIB
    assert 10 * MIB < peak_memory_bytes(system=System(tmp_path / "absent")) < peak_memory_bytes() + MIB
