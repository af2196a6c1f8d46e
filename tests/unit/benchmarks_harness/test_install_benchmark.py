"""What an environment weighs, and what its imports take, on figures small enough to be added by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.installed import Package, installed_in, slowest_packages, waited_for

IMPORT_TIMES = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   numpy._core
import time:        50 |        150 | numpy
import time:      2000 |       2000 | hetlora.errors
import time:         7 |       2007 | os
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Two packages, of which one has bytecode, and a file that belongs to none."""
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, files in {
        "small": {"small.py": 10},
        "large": {"large/__init__.py": 100, "large/x.so": 900},
    }.items():
        about = site / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        for file, size in files.items():
            (site / file).parent.mkdir(exist_ok=True)
            (site / file).write_bytes(b"#" * size)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        record = [*files, *(["large/__pycache__/x.pyc"] if name == "large" else [])]
        (about / "RECORD").write_text("".join(f"{file},,\n" for file in record))
    (site / "large" / "__pycache__").mkdir()
    (site / "large" / "__pycache__" / "x.pyc").write_bytes(b"#" * 70)
    (site / "strange.txt").write_bytes(b"#" * 5)
    return tmp_path


def test_packages_weigh_what_is_theirs_without_bytecode(environment: Path) -> None:
    about = sum(path.stat().st_size for path in environment.rglob("*.dist-info/*"))
    found = installed_in(environment, "edge")
    assert found.packages == [Package("large", "1.0", 1000), Package("small", "1.0", 10)]
    assert found.bytes == 1000 + 10 + 5 + about
    assert found.bytecode_bytes == 70


def test_time_is_that_of_a_packages_own_modules(environment: Path) -> None:
    assert slowest_packages(IMPORT_TIMES, most=2) == {"hetlora": 0.002, "numpy": 0.00015}


def test_statement_is_run_in_a_fresh_process_with_an_empty_folder() -> None:
    statement = "import os, colorsys; assert os.listdir(folder) == []"
    waited = waited_for(Path(sys.executable), "colorsys", statement, starts=2)
    assert waited.name == "colorsys"
    assert waited.seconds > 0
    assert len(waited.slowest) == 5
