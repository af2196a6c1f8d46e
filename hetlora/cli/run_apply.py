"""`hetlora run apply|check|file|clone`: runs as files, and runs that are another but for some settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from hetlora.cli.completion import complete_runs
from hetlora.cli.name_options import RunArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.option_words import key_and_value
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.published_bundle import published
from hetlora.cli.run_file import read_run_file, run_file_of
from hetlora.cli.run_told import show
from hetlora.cli.trust import CaFileOption
from hetlora.cli.whole_file import write_new
from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import RunState

FileArgument = Annotated[Path, typer.Argument(help="A run file: TOML, or YAML if it ends in .yaml or .yml.")]


def apply(
    file: FileArgument,
    start: Annotated[
        bool, typer.Option("--start", help="Start the run, unless it was started before.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make the run that a file describes; applied again as it is, the file is the run that it made.

    A file that was changed since is refused: a run's settings are frozen. With a new name it is another run.
    `hetlora run file` writes one, for a start.

    Example: `hetlora run apply runs/intents-12.toml --start`
    """
    wanted = read_run_file(file)
    with connect(url, token, ca_file) as operator:
        digest, _ = published(operator, wanted.bundle, as_json=as_json)
        run = operator.create_run(
            RunCreate(population=wanted.population, bundle=digest, settings=wanted.settings, name=wanted.name)
        )
        if start and run.state == RunState.DRAFT:
            run = operator.move_run(run.run_id, "start")
    show(run, as_json)


def check(file: FileArgument, as_json: JsonFlag = False) -> None:
    """Check a run file without a service: fields, ranges, and what does not go together in itself.

    Example: `hetlora run check runs/intents-12.toml`
    """
    wanted = read_run_file(file)
    if as_json:
        print_json(wanted)
    else:
        say(f"{file}: run {wanted.name} of population {wanted.population}, {wanted.settings.rounds} rounds")


def write_file(
    run_id: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="The file to write, which must not exist yet; else it is printed.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Another name, for another run.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the run file of a run, with every setting that it has; without `--out`, print it.

    Example: `hetlora run file RUN --out runs/intents-13.toml --name intents-13`
    """
    with connect(url, token, ca_file) as operator:
        text = run_file_of(operator.run(run_id), name)
    if out is None:
        if as_json:
            print_json({"text": text})
        else:
            say(text.rstrip("\n"))
        return
    write_new(out, text.encode())
    if as_json:
        print_json({"file": str(out)})
    else:
        say(f"wrote {out}")


def clone(
    run_id: Annotated[
        str, typer.Argument(help="The run whose settings to take.", autocompletion=complete_runs)
    ],
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting that differs, as training.learning_rate=0.001 or rule=rbla; again for each.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the new run.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a run, in state draft, with the settings of another but for what `--set` changes.

    Example: `hetlora run clone RUN --set rounds=20 --set training.learning_rate=0.0005 --name slower`
    """
    with connect(url, token, ca_file) as operator:
        origin = operator.run(run_id)
        if name is not None and name == origin.name:
            raise SettingsError("the clone has the name of its origin", got=name, expected="another, or none")
        run = operator.create_run(
            RunCreate(
                population=origin.population,
                bundle=origin.bundle,
                settings=changed(
                    # Its moments were the other run's: the clone would start before anybody looked at it.
                    origin.settings.model_copy(update={"schedule": None}),
                    change or [],
                ),
                name=name,
                cloned_from=origin.run_id,
            )
        )
    show(run, as_json)


def changed(settings: RunSettings, words: list[str]) -> RunSettings:
    """Settings with others at the dotted paths that `path=value` names.

    Raises:
        SettingsError: no such setting, or a value that does not fit.
    """
    values: dict[str, Any] = settings.model_dump(mode="json")
    told = [key_and_value(word, "--set") for word in words]
    paths = [path for path, _ in told]
    if len(set(paths)) < len(paths):
        raise SettingsError("--set names a setting twice", got=", ".join(paths), expected="each once")
    for path, value in told:
        *parents, last = path.split(".")
        inner: Any = values
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or (last not in inner and not parents):
            raise SettingsError(
                "--set names no setting of the run", got=path, expected="such as training.steps"
            )
        inner[last] = value
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("--set does not fit", got=faults_in_words(error.errors())) from error
