"""`hetlora doctor`: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.text import Text

from hetlora.cli.operator import DEFAULT_URL, UrlOption
from hetlora.cli.output import JsonFlag, plain, print_json, stdout
from hetlora.cli.trust import CaFileOption, trusted

MIN_DISK_FREE_BYTES = 2 * 10**9  # one bundle, its copy on a device, and a database


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `needed` marks what no part of hetlora can do without."""

    name: str
    ok: bool
    needed: bool
    detail: str


def doctor(url: UrlOption = DEFAULT_URL, ca_file: CaFileOption = None, as_json: JsonFlag = False) -> None:
    """Check Python, disk, the installed parts, the training runtime and whether a service answers.

    Exit code 5 when this Python cannot run hetlora; the other findings are there to read.
    """
    findings = [_python(), _disk(), *map(_package, _PACKAGES), _training_runtime(), _service(url, ca_file)]
    healthy = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        print_json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark, style = ("ok", "green") if finding.ok else ("no", "red" if finding.needed else "yellow")
            stdout.print(Text.assemble((f"{mark}   ", style), f"{finding.name:<32} ", plain(finding.detail)))
    if not healthy:
        raise typer.Exit(5)


# Distribution, the part of hetlora that needs it.
_PACKAGES = [
    ("onnxruntime-training-cpu", "edge"),
    ("tokenizers", "edge"),
    ("httpx", "edge"),
    ("fastapi", "service"),
    ("sqlalchemy", "service"),
    ("torch", "export"),
    ("optimum-onnx", "export"),
    ("matplotlib", "bench"),
]


def _python() -> Finding:
    version = sys.version_info
    return Finding(
        "Python 3.11 or 3.12",
        (3, 11) <= version[:2] < (3, 13),
        True,
        f"{platform.python_version()} on {platform.machine()}",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk space", free >= MIN_DISK_FREE_BYTES, False, f"{free / 1e9:.1f} GB free here")


def _package(package: tuple[str, str]) -> Finding:
    name, extra = package
    try:
        return Finding(f"{name} ({extra})", True, False, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(f"{name} ({extra})", False, False, f"pip install 'hetlora[{extra}]'")


def _training_runtime() -> Finding:
    def look() -> str:
        from edge_sdk.runtimes.onnx_library import import_training_bindings

        return f"{import_training_bindings().Module.__name__} of the training build loads"

    return _try("training on this machine", look)


def _service(url: str, ca_file: Path | None) -> Finding:
    def look() -> str:
        import httpx

        ready = url.rstrip("/") + "/internal/v1/ready"
        answer = httpx.get(ready, timeout=3, verify=trusted(ca_file)).raise_for_status()
        return f"{url}: {answer.status_code}"

    return _try("service answers", look)


def _try(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, False, look())
    except Exception as error:  # whatever is broken is what the doctor is asked about
        return Finding(name, False, False, f"{type(error).__name__}: {error}"[:120])
