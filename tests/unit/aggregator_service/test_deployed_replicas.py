"""The processes of `deploy/compose/compose.yaml` without containers: its variables make one service."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_figures import figure, figures_of
from service_operator import TOKEN, Operator
from service_process import now, process

from benchmarks.postgresql_server import PostgresqlServer
from benchmarks.s3_server import S3Server, environment

COMPOSE = Path(__file__).parents[3] / "deploy" / "compose" / "compose.yaml"


def variables(service: str, **elsewhere: str) -> dict[str, str]:
    """What the file sets for a service, but for what lies elsewhere here."""
    service_of_file: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"][service]
    of_file = {name: str(value) for name, value in service_of_file["environment"].items()}
    assert set(elsewhere) <= set(of_file)
    return of_file | elsewhere


@pytest.mark.slow
def test_round_goes_through_two_replicas_and_a_worker_that_share_a_database_and_a_store(
    postgresql: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as running:
        store = environment(running.enter_context(S3Server()).url)
        database = running.enter_context(postgresql.empty())
        clients = []
        for number, service in enumerate(("api", "api", "worker")):
            own = variables(service, HETLORA_DATABASE_URL=database, HETLORA_OPERATOR_TOKEN=TOKEN, **store)
            for name, value in own.items():
                monkeypatch.setenv(name, value)
            clients.append(running.enter_context(process(tmp_path / str(number)))[1])
        one, two, worker = clients
        operator = Operator(one)
        token, bundle = operator.population(), operator.publish()
        run_id = operator.run(bundle)
        device = FakeDevice(two, now, seed=1).enrol(token)
        assert device.deliver(make_adapter(2))["state"] == "accepted"
        assert operator.committed(run_id)["state"] == "completed"
        assert worker.get("/management/v1/runs").status_code == 404
        for client in clients:
            figures = figures_of(client)
            assert figure(figures, "hetlora_rounds", state="committed") == 1
            commits = figure(figures, "hetlora_round_commits_total", outcome="committed")
            assert commits == (1 if client is worker else 0)
