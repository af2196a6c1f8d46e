"""Whatever an operator can ask of the service, a command asks: each route of operators, by a real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from fastapi import FastAPI
from service_bundle import FILES, make_manifest
from service_operator import TOKEN, Operator
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typer.testing import CliRunner

from aggregator_service.api.operator_route import PREFIX, OperatorRoute
from aggregator_service.app import ROUTERS
from hetlora.cli.main import app as commands
from hetlora.errors import HetloraError

# As they are typed. NONE is nothing that is there, which the service says: it was asked.
COMMANDS = """
population create NONE
population rotate-token NONE
population list
population suspend-after NONE --off
privacy set-budget NONE --epsilon 8
privacy show NONE
device list
device decide NONE accepted
device preauthorize --population NONE --device-id 00000000000000000000000000000000
device assignments NONE
device replaced-keys NONE
device reputation NONE
device label NONE --set site=lab
device history NONE
transition list
bundle publish BUNDLE
bundle list
bundle show DIGEST
run create --population NONE --bundle DIGEST --goal-count 1
run list
run show NONE
run watch RUN
run figures NONE
run assignments NONE
run start NONE
adapter list NONE
adapter show NONE
adapter show NONE@champion
adapter note VERSION text
adapter show VERSION
adapter download VERSION --out OUT
alias list NONE
alias set NONE champion NONE --reason why
alias remove NONE champion --reason why
alias history NONE champion
adapter signing-keys
quarantine list
quarantine show NONE
quarantine download NONE --out OUT
quarantine release NONE
group create lab --population NONE
group list
group show NONE
group delete NONE
rollout create NONE --stage share=1,reports=1
rollout list
rollout show NONE
rollout devices NONE
rollout start NONE
key create NONE --role viewer
key list
key revoke NONE
key whoami
audit list
"""


class Asked:
    """Which routes a service was asked by."""

    def __init__(self, app: ASGIApp, seen: set[str]) -> None:
        self._app, self._seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            route = scope.get("route")  # noted before whoever asked has the answer
            if isinstance(route, OperatorRoute):
                self._seen.add(f"{scope['method']} {route.path}")
            await send(message)

        await self._app(scope, receive, noting)


@pytest.fixture
def stage(sqlite_stage: Any) -> Any:
    """Of one database: what differs between two is behind the service."""
    return sqlite_stage


@pytest.fixture
def seen(app: FastAPI) -> set[str]:
    """The routes that were asked for since; before the service listens."""
    found: set[str] = set()
    app.add_middleware(Asked, seen=found)
    return found


@pytest.fixture
def version(seen: set[str], operator: Operator, device: FakeDevice) -> str:
    """A version with a frozen adapter beside it."""
    run_id = operator.run(operator.publish(SPEC), rule="flora", max_rank=RANK)
    work(device, RANK, seed=3)
    return str(operator.committed(run_id)["adapter_version"])


def bundle_folder(folder: Path) -> Path:
    """A bundle that the service has not seen."""
    folder.mkdir()
    manifest = make_manifest().model_copy(update={"max_tokens": 32})
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return folder


@pytest.mark.slow
def test_every_route_of_operators_is_asked_by_a_command(
    seen: set[str], http: httpx.Client, version: str, bundle: str, tmp_path: Path
) -> None:
    seen.clear()
    known = {"VERSION": version, "RUN": version.partition("-v")[0], "DIGEST": bundle}
    known["BUNDLE"] = str(bundle_folder(tmp_path / "bundle"))
    where = ["--url", str(http.base_url), "--token", TOKEN, "--json"]

    for number, line in enumerate(COMMANDS.strip().splitlines()):
        known["OUT"] = str(tmp_path / f"out-{number}")
        words = [known.get(word, word.replace("NONE", "none")) for word in line.split()]
        done = CliRunner().invoke(commands, [*words, *where])
        # Refused by the service at the most: no command is mistyped.
        assert done.exit_code == 0 or isinstance(done.exception, HetloraError), f"{line}: {done.output}"

    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, OperatorRoute)]
    every = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    assert {route.replace(PREFIX, "") for route in every - seen} == set()
