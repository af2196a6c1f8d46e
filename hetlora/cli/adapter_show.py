"""`hetlora adapter show` and `note`: what is known of one adapter version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.trust import CaFileOption
from hetlora.cli.version_option import VersionArgument, version_of
from hetlora.messages.registry import AdapterDetails, VersionNote


def show(
    version: VersionArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show state, figures, lineage, aliases and notes of an adapter version.

    Example: `hetlora adapter show keyboard@champion`
    """
    with connect(url, token, ca_file) as operator:
        version = version_of(operator, version)
        details = operator.registry.adapter(version)
        notes = list(operator.registry.notes(version))
    if as_json:
        print_json(
            {**details.model_dump(mode="json"), "notes": [note.model_dump(mode="json") for note in notes]}
        )
    else:
        say(*_lines(details, notes))


def _lines(details: AdapterDetails, notes: list[VersionNote]) -> Iterator[str]:
    status, lineage = details.status, details.lineage
    yield f"{status.version}: {status.state}" + "".join(f", {alias}" for alias in details.aliases)
    yield f"adapter     sha256 {status.sha256}, {status.size_bytes} bytes"
    yield f"base model  {lineage.base_model}, sha256 {lineage.base_sha256}"
    yield f"bundle      {lineage.bundle}"
    yield f"run         {lineage.run_id} of {lineage.population}, seed {lineage.seed}"
    yield f"rule        {lineage.rule.name}"
    if lineage.made_from is None:
        yield "round       none: the initial adapter"
    else:
        yield f"round       {lineage.round_index}, attempt {lineage.attempt}, on {lineage.made_from}"
        yield f"cohort      {lineage.cohort_size} devices asked, {lineage.update_count} updates merged"
    for count in lineage.ranks:
        yield f"rank {count.rank:<6} {count.taken} trained at it, {count.updated} came back with it"
    if lineage.privacy is not None:
        yield f"privacy     epsilon {lineage.privacy.epsilon:g}, delta {lineage.privacy.delta:g} spent"
    for name, value in sorted(status.figures.items()):
        yield f"figure      {name} {value:.6g}"
    evaluation = status.evaluation
    if evaluation is not None:
        yield f"evaluation  {evaluation.state}: {evaluation.reason}"
        if evaluation.figures is not None:
            accuracy = evaluation.figures.accuracy
            told = "" if accuracy is None else f", accuracy {accuracy:.4f}"
            yield f"            loss {evaluation.figures.loss:.4f}{told}"
    for note in notes:
        yield f"note        {note.at:%Y-%m-%d %H:%M} {note.key_name}: {note.text}"


def note(
    version: VersionArgument,
    text: Annotated[str, typer.Argument(help="What to remember, up to 2000 characters.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a note on an adapter version; notes are neither changed nor removed.

    Example: `hetlora adapter note keyboard@candidate "worse on rare words, see the evaluation"`
    """
    with connect(url, token, ca_file) as operator:
        written = operator.registry.add_note(version_of(operator, version), text)
    if as_json:
        print_json(written)
    else:
        say(f"note {written.note_id} on {written.version}")
