from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from export.quiet import quiet_libraries, quiet_native_code


def test_library_chatter_is_held_back_for_the_time_of_the_block(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("optimum")
    with quiet_libraries():
        logger.warning("inside")
        warnings.warn("inside", UserWarning, stacklevel=1)  # an error in these tests, were it let through
    logger.warning("outside")
    assert [record.message for record in caplog.records] == ["outside"]


def test_native_code_writes_nowhere_for_the_time_of_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_native_code():
        os.write(2, b"inside")
    os.write(2, b"outside")
    assert capfd.readouterr().err == "outside"


def test_native_stderr_comes_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), quiet_native_code():
        raise RuntimeError
    os.write(2, b"outside")
    assert capfd.readouterr().err == "outside"


def test_exporter_is_imported_without_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import export.bundle_writer"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("", "")
