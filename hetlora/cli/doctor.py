"""`hetlora doctor`: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from hetlora.cli.findings import Finding, ask_ready, disk_space, service_findings, try_out
from hetlora.cli.operator import DEFAULT_URL, UrlOption
from hetlora.cli.output import JsonFlag, plain, print_json, stdout
from hetlora.cli.trust import CaFileOption


def doctor(
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    service: Annotated[
        bool,
        typer.Option(
            help="Look at what `hetlora serve` would work with here, by its settings (HETLORA_...)."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check Python, disk, the installed parts, each runtime and whether a service answers.

    With --service, instead: settings, database, its tables, object store, disk, objects that runs need, and a
    certificate's last day. All of a SQLite file and the newest adapters are read for it.

    Exit code 5 when this Python cannot run hetlora, or, with --service, when anything is wrong.

    Example: `hetlora doctor --service`
    """
    if service:
        findings = [_python(), *service_findings(url)]
    else:
        findings = [
            _python(),
            _disk(),
            *map(_package, _PACKAGES),
            *_runtimes(),
            _answers(url, ca_file),
        ]
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
    return disk_space(Path.cwd(), needed=False)


def _package(package: tuple[str, str]) -> Finding:
    name, extra = package
    try:
        return Finding(f"{name} ({extra})", True, False, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(f"{name} ({extra})", False, False, f"pip install 'hetlora[{extra}]'")


def _runtimes() -> list[Finding]:
    """One each: a device needs the one that its bundles are for."""
    from edge_sdk.runtimes import RUNTIMES, runtime_named

    def look(name: str) -> str:
        runtime_named(name)
        return "loads, and can train"

    return [try_out(f"training with {name}", partial(look, name)) for name in RUNTIMES]


def _answers(url: str, ca_file: Path | None) -> Finding:
    return try_out("service answers", lambda: ask_ready(url, ca_file))
