"""The `hetlora` command."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

import hetlora
from hetlora.cli import (
    adapter,
    adapter_export,
    adapter_show,
    adapter_verify,
    admission,
    alias,
    audit,
    bench,
    bundle,
    console,
    db,
    demo,
    device,
    device_list,
    doctor,
    export,
    group,
    key,
    plan,
    population,
    privacy,
    probe,
    quarantine,
    reputation,
    rollout,
    run,
    serve,
    tls,
    transition,
)
from hetlora.cli.output import print_error
from hetlora.errors import HetloraError, SettingsError, faults_in_words

app = typer.Typer(
    name="hetlora",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Fine-tune one small foundation model across many unequal devices.

    The way of an adapter: `export` makes a bundle, `serve` runs the service, `population create` and
    `bundle publish` prepare it, `device run` trains on each device, `run create` and `run start` set the
    rounds going, `adapter export` writes the result as a PEFT folder. `hetlora demo` shows all of it.

    Exit codes: 0 done; 1 a fault of hetlora; 2 wrong usage; 3 input that cannot be used; 4 refused by the
    service; 5 unavailable now (service unreachable, port in use, part not installed). Wrong usage is told in
    words, with `--json` as well.""",
)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("console")(console.console)
app.add_typer(db.app, name="db")
app.add_typer(population.app, name="population")
app.add_typer(privacy.app, name="privacy")
app.add_typer(bundle.app, name="bundle")
app.add_typer(run.app, name="run")
app.add_typer(device.app, name="device")
device.app.command("list")(device_list.list_devices)
device.app.command("replaced-keys")(device_list.replaced_keys)
device.app.command("preauthorize")(admission.preauthorize)
device.app.command("decide")(admission.decide)
device.app.command("rotate-key")(admission.rotate_key)
device.app.command("reputation")(reputation.reputation)
population.app.command("suspend-after")(reputation.suspend_after)
device.app.command("label")(group.label)
device.app.command("history")(group.history)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(adapter.app, name="adapter")
adapter.app.command("export")(adapter_export.export_adapter)
adapter.app.command("show")(adapter_show.show)
adapter.app.command("note")(adapter_show.note)
adapter.app.command("download")(adapter_verify.download)
adapter.app.command("signing-keys")(adapter_verify.signing_keys)
adapter.app.command("verify")(adapter_verify.verify)
app.add_typer(alias.app, name="alias")
app.add_typer(group.app, name="group")
app.add_typer(rollout.app, name="rollout")
app.add_typer(key.app, name="key")
app.add_typer(audit.app, name="audit")
app.add_typer(transition.app, name="transition")
app.add_typer(tls.app, name="tls")
app.command("bench", context_settings={"allow_extra_args": True, "allow_interspersed_args": False})(
    bench.bench
)
app.command("demo")(demo.demo)
app.command("probe")(probe.probe)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hetlora {hetlora.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run_command() -> None:
    """Run the command line; a known error ends in one message and its exit code, never a traceback."""
    try:
        app()
    except HetloraError as error:
        _fail(error)
    except ValidationError as error:  # a value that no message or setting takes
        _fail(SettingsError("a value does not fit", got=faults_in_words(error.errors())))


def _fail(error: HetloraError) -> NoReturn:
    print_error(error, as_json="--json" in sys.argv)
    sys.exit(error.exit_code)
