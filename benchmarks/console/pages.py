"""The console over a service with a long history: every page, and every route that pages ask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from pydantic import SecretStr

from aggregator_service.service import open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.identifiers import version_id_of
from benchmarks.console.answers import Answer, answers
from benchmarks.console.history import ROLLOUTS, History, Writer, assignment_id, device_id, rollout_id
from benchmarks.console.plans import read_whole
from benchmarks.processes import COMMAND, Process, Service, free_port
from benchmarks.service.tiny_bundle import tiny_spec, write_tiny_bundle
from hetlora.cli.operator import TOKEN_FILE
from hetlora.errors import ServiceUnreachable
from hetlora.messages.management import RunCreate, RunSettings

POPULATION: Final = "phones"


@dataclass(frozen=True, slots=True)
class Found:
    """What one database came to."""

    rows: dict[str, int]
    pages: list[Answer]
    routes: list[Answer]
    read_whole: dict[str, list[str]]  # by route: tables that are read from end to end


def measured(folder: Path, size: History, times: int, database_url: str | None) -> Found:
    """Fill a new database, serve it, and ask for everything."""
    told = {} if database_url is None else {"HETLORA_DATABASE_URL": database_url}
    service = Service(folder / "service", folder / "service.log", told)
    run_id = _created(service, folder, size)
    url = None if database_url is None else SecretStr(database_url)
    settings = Settings(data_dir=folder / "service", database_url=url)
    token = (folder / "service" / TOKEN_FILE).read_text().strip()
    with closing(open_service(settings)) as opened:
        rows = Writer(opened, size, POPULATION, run_id).write()
        asked = routes(run_id, size)
    with closing(open_service(settings)) as opened:
        whole = read_whole(opened, token, asked, rows)
    with service, httpx.Client(base_url=service.url, timeout=60) as http:
        http.headers["Authorization"] = f"Bearer {token}"
        from_routes = answers(http, asked, times)
        with _console(service.url, folder) as address, _browser(address) as browser:
            browser.post("/login", data={"token": token}).raise_for_status()
            from_pages = answers(browser, pages(run_id, size), times)
    return Found(rows, from_pages, from_routes, whole)


def _browser(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=60, follow_redirects=True)


def _created(service: Service, folder: Path, size: History) -> str:
    bundle = write_tiny_bundle(folder / "bundle", tiny_spec(64, 16))
    with service, service.operator() as operator:
        operator.create_population(POPULATION)
        operator.publish_bundle(bundle)
        settings = RunSettings(rounds=size.rounds, goal_count=size.cohort + 1, max_rank=16)
        run = operator.create_run(RunCreate(population=POPULATION, bundle=bundle.digest, settings=settings))
        return run.run_id


def pages(run_id: str, size: History) -> dict[str, str]:
    """The console's pages by name."""
    return {
        "overview": "/",
        "runs": "/runs",
        "a run": f"/runs/{run_id}",
        "adapters": "/adapters",
        "an adapter": f"/adapters/{version_id_of(run_id, size.rounds - 2)}",
        "rollouts": "/rollouts",
        "a rollout": f"/rollouts/{rollout_id(ROLLOUTS - 1)}",
        "devices": "/devices",
        "devices that are suspended": f"/devices?population={POPULATION}&state=suspended",
        "a device": f"/devices/{device_id(0)}",
        "quarantine": "/quarantine",
        "a quarantined update": f"/quarantine/{assignment_id(0, 0)}",
        "audit log": "/audit",
    }


def routes(run_id: str, size: History) -> dict[str, str]:
    """What pages ask of the service, by name; paths below its address."""
    base, newest = "/management/v1", size.rounds - 1
    run, rollout = f"{base}/runs/{run_id}", f"{base}/rollouts/{rollout_id(ROLLOUTS - 1)}"
    device = f"{base}/devices/{device_id(0)}"
    return {
        "populations": f"{base}/populations",
        "aliases": f"{base}/populations/{POPULATION}/aliases",
        "runs, newest first": f"{base}/runs?newest_first=true&limit=50",
        "rounds, newest first": f"{run}/rounds?newest_first=true&limit=50",
        "figures of 50 rounds": f"{run}/figures?newest_first=true&limit=50",
        "figures of 100 rounds": f"{run}/figures",
        "assignments of a round": f"{run}/assignments?round_index={newest}",
        "assignments of a run": f"{run}/assignments",
        "adapters of a run": f"{run}/adapters?limit=100",
        "an adapter": f"{base}/adapters/{version_id_of(run_id, size.rounds - 2)}",
        "devices": f"{base}/devices?limit=50",
        "devices of a population": f"{base}/devices?population={POPULATION}&limit=50",
        "devices that are suspended": f"{base}/devices?population={POPULATION}&state=suspended&limit=50",
        "assignments of a device": f"{device}/assignments",
        "reputation of a device": f"{device}/reputation",
        "rollouts of a device": f"{device}/rollouts",
        "transitions, newest first": f"{base}/transitions?newest_first=true&limit=20",
        "transitions of a device": f"{base}/transitions?subject=device&subject_id={device_id(0)}",
        "rollouts": f"{base}/rollouts",
        "a rollout": rollout,
        "devices of a rollout": f"{rollout}/devices",
        "devices of a rollout that failed": f"{rollout}/devices?state=failed",
        "quarantine": f"{base}/quarantine",
        "quarantine that is held": f"{base}/quarantine?state=held",
        "audit log": f"{base}/audit?limit=50",
        "audit log of a device": f"{base}/audit?subject={device_id(1)}",
    }


@contextmanager
def _console(service_url: str, folder: Path) -> Iterator[str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [*COMMAND, "console", "--url", service_url, "--port", str(port)]
    with Process(command, folder / "console.log") as console:
        _wait_for(address, console)
        yield address


def _wait_for(address: str, console: Process) -> None:
    for _ in range(600):
        try:
            httpx.get(f"{address}/login").raise_for_status()
            return
        except httpx.TransportError:
            if not console.running:
                break
            time.sleep(0.1)
    raise ServiceUnreachable("the console does not answer", got=console.log.read_text()[-500:])
