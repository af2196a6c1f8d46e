"""`hetlora device`: be a device of a fleet, or look at the fleet's devices."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import typer

from edge_sdk.defaults import DEFAULT_MAX_BYTES, DEFAULT_PART_BYTES
from hetlora.cli import device_adapter, device_status
from hetlora.cli.condition_options import ConditionsOption, conditions_of
from hetlora.cli.device_profile import read_profile
from hetlora.cli.example_options import ExamplesKeyFileOption, read_key
from hetlora.cli.folder_option import folder_of
from hetlora.cli.operator import DEFAULT_URL, UrlOption
from hetlora.cli.output import JsonFlag
from hetlora.cli.parts import part
from hetlora.cli.trust import CaFileOption, PinOption, ProxyOption
from hetlora.cli.visits import VisitTeller
from hetlora.errors import DataError, HetloraError, SettingsError

if TYPE_CHECKING:
    from edge_sdk import ExampleStore

Result = TypeVar("Result")

LOOK_SECONDS: Final = 0.5  # how long a signal may stay unseen

app = typer.Typer(no_args_is_help=True, help="Devices: run one here, or list a population's.")
app.add_typer(device_adapter.app, name="adapter")
app.command("status")(device_status.status)


@app.command("run")
def run_device(
    population: Annotated[str, typer.Option(help="The population to take part in.")],
    folder: Annotated[
        Path,
        typer.Option(
            parser=folder_of,
            metavar="<path>",
            help="Where this device keeps its key, examples and bundles: one folder is one device.",
        ),
    ],
    url: UrlOption = DEFAULT_URL,
    ca_file: CaFileOption = None,
    pin: PinOption = None,
    proxy: ProxyOption = None,
    enrolment_token: Annotated[
        str, typer.Option(envvar="HETLORA_ENROLMENT_TOKEN", help="Admits the device on its first visit.")
    ] = "",
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Labelled text (CSV, JSON, JSON lines), or chats (JSON lines with `messages`), to train on "
            "instead of what is stored."
        ),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="The same to evaluate adapters on, where a run or --adopt asks for it; never trained on."
        ),
    ] = None,
    held_out_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99,
            help="With --examples: the share of them to hold out, always the same; not beside --held-out.",
        ),
    ] = None,
    keep_examples_seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="With --examples or --held-out: remove for good what they bring when it is as old as this.",
        ),
    ] = None,
    max_example_bytes: Annotated[
        int,
        typer.Option(
            min=1, help="What examples may take, and what is held out once more; the oldest go first."
        ),
    ] = DEFAULT_MAX_BYTES,
    examples_key_file: ExamplesKeyFileOption = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Capabilities by hand, as `hetlora probe --report --json` prints them."),
    ] = None,
    name: Annotated[str, typer.Option(help="What operators see.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that training may use.")] = None,
    runtime: Annotated[
        Literal["onnx", "executorch", "pytorch"] | None,
        typer.Option(help="Train with this; else with the first that is installed and the bundle is for."),
    ] = None,
    traffic_bytes: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="What adapters may take over the network in a round, both ways; not beside --profile, which "
            "has it.",
        ),
    ] = None,
    upload_part_bytes: Annotated[
        int,
        typer.Option(
            min=1,
            help="An update that is larger goes up in parts of this size, and goes on after the last that "
            "arrived.",
        ),
    ] = DEFAULT_PART_BYTES,
    condition: ConditionsOption = None,
    adopt: Annotated[
        Literal["always", "if_not_worse"],
        typer.Option(
            help="Put a new adapter in use always, or if its loss on what is held out is not above."
        ),
    ] = "always",
    adopt_tolerance: Annotated[
        float, typer.Option(min=0.0, help="With --adopt if_not_worse: by how much it may be above.")
    ] = 0.0,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(
            envvar="HETLORA_DEVICE_LOG_LEVEL",
            help="What of the log goes to standard error; nothing of examples is ever in it.",
        ),
    ] = "warning",
    once: Annotated[bool, typer.Option(help="Visit the service once, then end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Visit the service, work when there is work, come back when it says so.

    SIGTERM ends it with the step that is under way; the next start goes on with the assignment.

    With --json, one object a line: what each visit came to. With --once, a failed visit ends with its error's
    exit code.

    Example: `hetlora device run --url https://fl.example.org --population support-intents --folder device/
    --enrolment-token TOKEN --examples texts.csv --held-out-share 0.1 --condition charging`
    """
    with part("edge"):
        from edge_sdk import Adoption, EdgeClient, runtime_named
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("stamina").setLevel(logging.ERROR)  # warns of each retry without its cause
    if held_out is not None and held_out_share is not None:
        raise SettingsError(
            "what is held out is given twice", got="--held-out and --held-out-share", expected="one of them"
        )
    capabilities = None if profile is None else read_profile(profile)
    with (
        VisitTeller(as_json=as_json) as teller,
        EdgeClient(
            url,
            population,
            folder,
            enrolment_token=enrolment_token or None,
            name=name,
            capabilities=capabilities,
            threads=threads,
            runtime=None if runtime is None else runtime_named(runtime),
            traffic_bytes_per_round=traffic_bytes,
            upload_part_bytes=upload_part_bytes,
            conditions=conditions_of(condition or []),
            max_example_bytes=max_example_bytes,
            keep_examples_seconds=keep_examples_seconds,
            held_out_share=held_out_share,
            encryption_key=read_key(examples_key_file),
            adoption=Adoption(adopt, tolerance=adopt_tolerance),
            on_event=teller.on_event,
            ca_file=ca_file,
            tls_pins=pin or (),
            proxy=proxy,
        ) as client,
    ):
        if examples is not None:
            _fill(client.examples, examples)
        if held_out is not None:
            _fill(client.held_out, held_out)
        # In a thread of its own: a signal handler must not set an event that its own thread may wait for.
        with _stopped_by_signals() as stop, ThreadPoolExecutor(1) as pool:
            if not once:
                _awaited(pool.submit(client.run_forever, stop=stop, on_visit=teller.on_visit))
                return
            visit = _awaited(pool.submit(client.run_once, stop=stop))
            teller.on_visit(visit)
            if isinstance(visit.error, HetloraError):
                raise visit.error


def _awaited(future: Future[Result]) -> Result:
    """What a thread comes to, without sleeping through signals.

    Python runs handlers in the main thread alone. Where the system gives the signal to another one, a main
    thread that waits without end is not woken, and the device went on for as long as nobody killed it.
    """
    while not wait([future], LOOK_SECONDS).done:
        pass
    return future.result()


def _fill(store: ExampleStore, path: Path) -> None:
    from edge_sdk.examples.example_files import read_examples

    try:
        examples = read_examples(path)
    except OSError as error:
        raise DataError(f"cannot read {path}", got=error.strerror) from error
    store.replace_all(examples)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
