"""Bytes that a user fetches before any model: the built page's files, and the app's package."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from benchmarks.clients.jvm import CLIENT

# Nothing else of the folder is served.
SERVED: Final = (".html", ".js", ".mjs", ".css", ".svg", ".wasm")
APKS: Final = CLIENT / "build" / "app"


@dataclass(frozen=True, slots=True)
class FileSize:
    """A file of the page, or an APK; `gzip_bytes` is what a proxy that packs would send."""

    name: str
    size_bytes: int
    gzip_bytes: int


def page_sizes(folder: Path) -> list[FileSize]:
    """Of the files that are served of a built page, the largest first."""
    return _sizes(path for path in folder.rglob("*") if path.suffix in SERVED)


def apk_sizes(folder: Path = APKS) -> list[FileSize]:
    """Of the packages that were built, without what they are made of; none where nothing was."""
    return _sizes(folder.glob("hetlora-*.apk"))


def _sizes(paths: Iterable[Path]) -> list[FileSize]:
    return sorted(map(_size, paths), key=lambda size: (-size.size_bytes, size.name))


def sizes_table(page: list[FileSize], apks: list[FileSize]) -> Table:
    """For people, in KB."""
    table = Table(title="What is fetched before any model", title_justify="left")
    table.add_column("file")
    for heading in ("KB", "KB packed by gzip"):
        table.add_column(heading, justify="right")
    whole = FileSize("page", sum(own.size_bytes for own in page), sum(own.gzip_bytes for own in page))
    for size in [*page, *([whole] if page else []), *apks]:
        table.add_row(size.name, f"{size.size_bytes / 1e3:,.1f}", f"{size.gzip_bytes / 1e3:,.1f}")
    return table


def _size(path: Path) -> FileSize:
    data = path.read_bytes()
    return FileSize(path.name, len(data), len(gzip.compress(data, 9, mtime=0)))
