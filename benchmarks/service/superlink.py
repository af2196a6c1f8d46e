"""Flower's SuperLink on the work of a service: nodes pull an adapter and push an update, in rounds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.aggregation.measurements import FLOWER_VERSION
from benchmarks.harness import peer_python, pinned
from benchmarks.processes import Process, free_port
from hetlora.errors import ServiceFailed

PEER: Final = Path(__file__).parents[1] / "peers"
START_SECONDS: Final = 120.0
ROUNDS_SECONDS: Final = 3600.0
BEGUN: Final = "begun"
OUT: Final = "rounds.json"
ENDED: Final = "Finished task"  # what the SuperLink's log says of a ServerApp, whatever became of it


@dataclass(frozen=True, slots=True)
class SuperLinkPlan:
    """So many rounds, each with so many of the nodes, and four square layers of LoRA."""

    nodes: int
    rounds: int
    goal_count: int
    features: int
    rank: int


@dataclass(frozen=True, slots=True)
class SuperLinkRow:
    """What Flower took; processor time is that of the SuperLink and of the ServerApp that it starts."""

    version: str
    nodes: int
    updates: int
    seconds: float
    updates_per_second: float
    cpu_ms_per_update: float
    peak_rss_bytes: int  # of the SuperLink


def measure_superlink(plan: SuperLinkPlan, folder: Path) -> SuperLinkRow:
    """Run all rounds on a SuperLink that keeps its state in SQLite.

    Args:
        folder: holds all files, a new one.

    Raises:
        ServiceFailed: Flower does not start, or does not come to an end.
        DependencyMissing: see `peer_python`.
    """
    programs = peer_python("flower", [*pinned("numpy"), FLOWER_VERSION], constrained=False).parent
    port = free_port()
    address = f"127.0.0.1:{port}"
    write_app(folder / "app", plan, folder)
    environment = _environment(folder / "home", address, programs)
    options = ["--insecure", "--host", "127.0.0.1", "--port", str(port)]
    options += ["--database", str(folder / "state.sqlite"), "--disable-runtime-dependency-installation"]
    superlink = [str(programs / "flower-superlink"), *options]
    nodes = [str(programs / "python"), str(PEER / "flower_nodes.py"), address, str(plan.nodes)]
    with ExitStack() as stack:
        link = stack.enter_context(Process(superlink, folder / "superlink.log", environment))
        _wait_until_answers(link, port)
        stack.enter_context(_Piped(nodes, folder / "nodes.log", environment))
        _submit([str(programs / "flwr"), "run", str(folder / "app"), "bench"], environment)
        _wait_for(folder / BEGUN, link)
        before = link.cpu_seconds()
        _wait_for(folder / OUT, link)
        cpu_seconds, peak = link.cpu_seconds() - before, link.peak_rss_bytes()
    told = json.loads((folder / OUT).read_text())
    return SuperLinkRow(
        version=FLOWER_VERSION,
        nodes=plan.nodes,
        updates=int(told["replies"]),
        seconds=round(told["seconds"], 2),
        updates_per_second=round(told["replies"] / told["seconds"], 2),
        cpu_ms_per_update=round(1000 * cpu_seconds / told["replies"], 1),
        peak_rss_bytes=peak,
    )


def _environment(home: Path, address: str, programs: Path) -> dict[str, str]:
    """Flower with a configuration of its own, which reports to nobody."""
    home.mkdir()
    connection = f'[superlink.bench]\naddress = "{address}"\ninsecure = true\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "bench"\n\n{connection}')
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"  # where it finds what it starts
    return {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "PATH": path, "PYTHONPATH": ""}


class _Piped(Process):
    """A process that ends with its standard input."""

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )


def write_app(folder: Path, plan: SuperLinkPlan, out: Path) -> None:
    """Make the folder of a Flower app whose server is `flower_rounds.py`; no node of ours loads its client.

    Args:
        out: the folder where the rounds leave their files.
    """
    package = folder / "fleetapp"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(PEER / "flower_rounds.py", package / "server.py")
    (package / "client.py").write_text("from flwr.clientapp import ClientApp\n\napp = ClientApp()\n")
    numbers = {name: getattr(plan, name) for name in ("nodes", "rounds", "goal_count", "features", "rank")}
    lines = [
        *("[build-system]", 'requires = ["hatchling"]', 'build-backend = "hatchling.build"'),
        *("[project]", 'name = "fleetapp"', 'version = "1.0.0"', 'description = "Rounds"'),
        *('license = "Apache-2.0"', f'dependencies = ["{FLOWER_VERSION}"]'),
        *("[tool.flwr.app]", 'publisher = "hetlora"', "[tool.flwr.app.components]"),
        *('serverapp = "fleetapp.server:app"', 'clientapp = "fleetapp.client:app"'),
        *(
            "[tool.flwr.app.config]",
            *(f"{name} = {json.dumps(str(out / file))}" for name, file in (("begun", BEGUN), ("out", OUT))),
        ),
        *(f"{name} = {value}" for name, value in numbers.items()),
    ]
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n")


def _wait_until_answers(link: Process, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while link.running and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise ServiceFailed("Flower's SuperLink does not start", got=link.log.read_text()[-400:])


def _submit(command: Sequence[str], environment: dict[str, str]) -> None:
    own = {**os.environ, **environment}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceFailed("Flower does not take the run", got=(done.stdout + done.stderr)[-400:])


def _wait_for(file: Path, link: Process) -> None:
    """Wait for a file that the rounds leave."""
    deadline = time.monotonic() + ROUNDS_SECONDS
    while not file.exists():
        told = link.log.read_text()
        over = ENDED in told and not file.exists()  # as a node was told of a fault, and is no more
        if over or not link.running or time.monotonic() > deadline:
            faults = [line for line in told.splitlines() if "Error" in line]
            raise ServiceFailed("Flower's rounds do not end", got=faults[0] if faults else told[-400:])
        time.sleep(0.2)
