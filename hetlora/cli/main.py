"""The `hetlora` command."""

from __future__ import annotations

import signal
import sys
import warnings
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
    simulate,
    tls,
    transition,
)
from hetlora.cli.exit_codes import exit_codes_in_words
from hetlora.cli.output import print_error
from hetlora.errors import HetloraError, SettingsError, faults_in_words

START, FLEET, DEVICE, MACHINE = "Start here", "A fleet and its operators", "A device", "The service's machine"

app = typer.Typer(
    name="hetlora",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Fine-tune one small foundation model across many unequal devices.

    The way of an adapter: `export` makes a bundle, `serve` runs the service, `population create` and
    `bundle publish` prepare it, `device run` trains on each device, `run create` and `run start` set the
    rounds going, `rollout create` brings the result to devices in stages, `adapter export` writes it as a
    PEFT folder. `hetlora demo` shows all of it, and `hetlora console` has pages for a browser.

    `hetlora COMMAND --help` tells the rest, with an example. Commands of operators find the service by
    `HETLORA_URL` and their key by `HETLORA_OPERATOR_TOKEN`. With `--json` each prints one object, or one a
    line. `hetlora --install-completion` has your shell complete commands, options and values.""",
    epilog=f"{exit_codes_in_words()} Errors are one line, or with --json one object, on standard error; "
    "wrong usage is always told in words.",
)
app.command("export", rich_help_panel=START)(export.export)
app.command("serve", rich_help_panel=START)(serve.serve)
app.command("console", rich_help_panel=START)(console.console)
app.add_typer(db.app, name="db", rich_help_panel=MACHINE)
app.add_typer(population.app, name="population", rich_help_panel=FLEET)
app.add_typer(privacy.app, name="privacy", rich_help_panel=FLEET)
app.add_typer(bundle.app, name="bundle", rich_help_panel=FLEET)
app.add_typer(run.app, name="run", rich_help_panel=FLEET)
app.add_typer(device.app, name="device", rich_help_panel=DEVICE)
device.app.command("list")(device_list.list_devices)
device.app.command("assignments")(device_list.assignments)
device.app.command("replaced-keys")(device_list.replaced_keys)
device.app.command("preauthorize")(admission.preauthorize)
device.app.command("decide")(admission.decide)
device.app.command("rotate-key")(admission.rotate_key)
device.app.command("reputation")(reputation.reputation)
population.app.command("suspend-after")(reputation.suspend_after)
device.app.command("label")(group.label)
device.app.command("history")(group.history)
app.add_typer(quarantine.app, name="quarantine", rich_help_panel=FLEET)
app.add_typer(adapter.app, name="adapter", rich_help_panel=FLEET)
adapter.app.command("export")(adapter_export.export_adapter)
adapter.app.command("show")(adapter_show.show)
adapter.app.command("note")(adapter_show.note)
adapter.app.command("download")(adapter_verify.download)
adapter.app.command("signing-keys")(adapter_verify.signing_keys)
adapter.app.command("verify")(adapter_verify.verify)
app.add_typer(alias.app, name="alias", rich_help_panel=FLEET)
app.add_typer(group.app, name="group", rich_help_panel=FLEET)
app.add_typer(rollout.app, name="rollout", rich_help_panel=FLEET)
app.add_typer(key.app, name="key", rich_help_panel=FLEET)
app.add_typer(audit.app, name="audit", rich_help_panel=FLEET)
app.add_typer(transition.app, name="transition", rich_help_panel=FLEET)
app.add_typer(tls.app, name="tls", rich_help_panel=MACHINE)
app.command(
    "bench",
    rich_help_panel=MACHINE,
    context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
)(bench.bench)
app.command("demo", rich_help_panel=START)(demo.demo)
app.command("probe", rich_help_panel=DEVICE)(probe.probe)
app.command("plan", rich_help_panel=DEVICE)(plan.plan)
app.command("simulate", rich_help_panel=FLEET)(simulate.simulate)
app.command("doctor", rich_help_panel=START)(doctor.doctor)


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
    # So that what is drawn on a terminal is taken away, and no half of a file is left.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # A server that is told to end before it takes signals itself has a coroutine that it did not come to.
    warnings.filterwarnings("ignore", "coroutine 'Server.serve' was never awaited", RuntimeWarning)
    try:
        app()
    except HetloraError as error:
        _fail(error)
    except ValidationError as error:  # a value that no message or setting takes
        _fail(SettingsError("a value does not fit", got=faults_in_words(error.errors())))


def _fail(error: HetloraError) -> NoReturn:
    print_error(error, as_json="--json" in sys.argv)
    sys.exit(error.exit_code)
