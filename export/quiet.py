"""Keeps the chatter of the export libraries off the user's screen."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# The root's too: some of them log there.
_NOISY_LOGGERS = ("transformers", "optimum", "huggingface_hub", "torch.onnx", "root")


def quiet_torchao() -> None:
    """Let torchao fail alone, not tell of GPU libraries that it lacks.

    ExecuTorch brings it, and transformers imports it wherever it finds it, before any block could be quiet.
    """
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def first_line(error: Exception) -> str:
    """What a library raised, by its type and the first line of its words; pages may follow."""
    lines = (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), '')}"


def report_to_nobody(message: str) -> None:
    """Take a message about the progress of an export, and let it fall."""


@contextmanager
def quiet_loggers(names: Iterable[str]) -> Iterator[None]:
    """Hold back log lines below ERROR."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hold back Python warnings, library log lines below ERROR, and progress bars."""
    from transformers.utils import logging as bars

    had_bars = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # type: ignore[no-untyped-call]  # huggingface_hub's with them
    try:
        with warnings.catch_warnings(), quiet_loggers(_NOISY_LOGGERS):
            warnings.simplefilter("ignore")
            yield
    finally:
        if had_bars:
            bars.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def quiet_native_code() -> Iterator[None]:
    """Send the process's stderr to nowhere for a moment.

    ONNX Runtime's gradient builder writes a hundred lines from C++ and heeds no severity that can be set
    from Python. Its failures are raised as exceptions, so nothing is lost.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
