"""`hetlora run export`: every metric of a run as one tidy table, for notebooks and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from hetlora.cli.name_options import RunArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.progress import work
from hetlora.cli.trust import CaFileOption
from hetlora.cli.whole_file import check_new, new_file, write_new
from hetlora.errors import SettingsError
from hetlora.messages.figures import RoundFigures
from hetlora.messages.management import AssignmentStatus

COLUMNS: Final = ("run_id", "round_index", "attempt", "device_id", "metric", "value")
Row = tuple[str, int, int, str, str, float]

NOTEBOOK: Final = (
    "import pandas as pd\n\nmetrics = pd.read_csv({table!r})\nmetrics.head()",
    "of_rounds = metrics[metrics.device_id.isna()]\n"
    "rounds = of_rounds.pivot_table(index='round_index', columns='metric', values='value')\n"
    "rounds[[name for name in ('last_loss', 'evaluation_loss') if name in rounds]].plot(marker='o')",
    "ranks = [name for name in rounds if name.startswith('updates_of_rank_')]\n"
    "rounds[ranks].plot.bar(stacked=True)",
    "metrics[metrics.metric == 'training_seconds'].groupby('device_id').value.describe()",
)


def export(
    run_id: RunArgument,
    out: Annotated[
        Path,
        typer.Option(
            help="The file to write, which must not exist yet; of a notebook, its table lies beside it."
        ),
    ],
    form: Annotated[
        Literal["csv", "parquet", "notebook"],
        typer.Option("--format", help="parquet needs pyarrow; a notebook reads its table with pandas."),
    ] = "csv",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write every metric of a run: a line for each figure of a round, and of a device's part in it.

    Example: `hetlora run export RUN --format notebook --out run.ipynb`
    """
    with connect(url, token, ca_file) as operator, work("Reading figures", as_json=as_json) as told:
        rows = [
            *of_rounds(run_id, told.counted(operator.figures(run_id), "rounds")),
            *of_devices(run_id, told.counted(operator.assignments(run_id), "assignments")),
        ]
    written = {"csv": _csv, "parquet": _parquet, "notebook": _notebook}[form](out, rows)
    if as_json:
        print_json({"files": [str(path) for path in written], "rows": len(rows)})
    else:
        say(f"wrote {' and '.join(map(str, written))}: {len(rows)} figures")


def of_rounds(run_id: str, rounds: Iterable[RoundFigures]) -> Iterator[Row]:
    """The figures of rounds; times are seconds since the first round began."""
    begun = None
    for own in rounds:
        begun = begun or own.started_at
        values: dict[str, Any] = own.model_dump(mode="json", exclude={"figures", "ranks", "privacy"})
        values |= {f"updates_of_rank_{share.rank}": share.updates for share in own.ranks} | own.figures
        values["started_seconds"] = (own.started_at - begun).total_seconds()
        if own.ended_at is not None:
            values["ended_seconds"] = (own.ended_at - begun).total_seconds()
        if own.privacy is not None:
            values |= {"epsilon": own.privacy.epsilon, "delta": own.privacy.delta}
        yield from _numbers(run_id, own.round_index, own.attempt, "", values)


def of_devices(run_id: str, assignments: Iterable[AssignmentStatus]) -> Iterator[Row]:
    """The figures of devices' parts in rounds."""
    for own in assignments:
        yield from _numbers(run_id, own.round_index, own.attempt, own.device_id, own.model_dump(mode="json"))


def _numbers(run_id: str, index: int, attempt: int, device_id: str, values: dict[str, Any]) -> Iterator[Row]:
    for name, value in values.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in ("round_index", "attempt"):
            yield run_id, index, attempt, device_id, name, float(value)


def _csv(out: Path, rows: Iterable[Row]) -> list[Path]:
    with new_file(out) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        table = csv.writer(text)
        table.writerow(COLUMNS)
        table.writerows(rows)
    return [out]


def _parquet(out: Path, rows: Iterable[Row]) -> list[Path]:
    with part("parquet"):
        import pyarrow
        from pyarrow import parquet

    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    with new_file(out) as file:
        parquet.write_table(pyarrow.table(dict(zip(COLUMNS, map(list, columns), strict=True))), file)
    return [out]


def _notebook(out: Path, rows: Iterable[Row]) -> list[Path]:
    table = out.with_suffix(".csv")
    if table == out:
        raise SettingsError(
            "a notebook needs another name than its table", got=out, expected=out.with_suffix(".ipynb")
        )
    check_new(out)
    _csv(table, rows)
    write_new(out, json.dumps(notebook(table.name), indent=1).encode())
    return [out, table]


def notebook(table: str) -> dict[str, Any]:
    """A notebook (nbformat 4.5) that reads the table beside it, and draws it."""
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": source.format(table=table),
        }
        for number, source in enumerate(NOTEBOOK)
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
