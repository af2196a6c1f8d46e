"""The tables of `clients.json` for docs/benchmarks.md: python -m benchmarks.clients.markdown [FILE]"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

Row = Mapping[str, Any]


def steps_lines(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each model, batch and number of threads: times Python's, Python's own in milliseconds.

    A client without figures has a dash; why is in the JSON object.
    """
    clients = list(dict.fromkeys(row["client"] for row in rows))
    yield f"| model, batch, threads | {clients[0]}, ms | {' | '.join(clients[1:])} |"
    yield "|---" * (len(clients) + 1) + "|"
    for name, group in _grouped(rows).items():
        reference = group[clients[0]]
        ratios = [_ratio(group.get(client)) for client in clients[1:]]
        yield f"| {name} | {1000 * reference['seconds']:,.0f} | {' | '.join(ratios)} |"


def sizes_lines(files: Sequence[Row]) -> Iterator[str]:
    """One line for each file, and their sum."""
    yield "| file | KB | packed by gzip, KB |"
    yield "|---|---|---|"
    whole = {key: sum(file[key] for file in files) for key in ("size_bytes", "gzip_bytes")}
    for file in (*files, {"name": "all", **whole}):
        yield f"| {file['name']} | {file['size_bytes'] / 1e3:,.1f} | {file['gzip_bytes'] / 1e3:,.1f} |"


def _grouped(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    grouped: dict[str, dict[str, Row]] = {}
    for row in rows:
        threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
        grouped.setdefault(f"{row['model']}, {row['shape']}, {threads}", {})[row["client"]] = row
    return grouped


def _ratio(row: Row | None) -> str:
    return "-" if row is None or row["ratio"] is None else f"{row['ratio']:.2f}"


def main() -> None:
    """Print what of the tables the file has figures for."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "clients.json"
    told = json.loads(path.read_text())
    for lines in (
        *([steps_lines(told["rows"])] if told.get("rows") else []),
        *(sizes_lines(told[part]) for part in ("page", "apk") if told.get(part)),
    ):
        print("\n".join(lines), end="\n\n")


if __name__ == "__main__":
    main()
