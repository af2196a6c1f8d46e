"""The operator's side of the protocol: a client of `/management/v1`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Self
from urllib.parse import quote

import httpx
import typer
from pydantic import BaseModel

from hetlora.bundle import Bundle
from hetlora.errors import AuthenticationFailed, ServiceUnreachable, SettingsError
from hetlora.manifest import MANIFEST_NAME, Manifest, parse_manifest
from hetlora.messages.common import Answer, Item, Page, error_of_answer, parse_answer
from hetlora.messages.management import (
    AdapterVersionStatus,
    AssignmentStatus,
    BundlePublish,
    BundleStatus,
    DeviceDetails,
    PopulationCreate,
    PopulationCreated,
    PopulationStatus,
    RoundStatus,
    RunCreate,
    RunStatus,
)

UrlOption = Annotated[str, typer.Option("--url", envvar="HETLORA_URL", help="Where the service listens.")]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="HETLORA_OPERATOR_TOKEN",
        help="Operator token; without it, the one that `hetlora serve` left in ./hetlora-data is read.",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8440"
TOKEN_FILE = "operator-token"


class Operator:
    """One operator's connection to a service; use as a context manager.

    Every method raises the error that the service's problem document tells of, or ServiceUnreachable.

    Raises:
        SettingsError: an address or token that no request can carry.
    """

    def __init__(self, url: str, token: str) -> None:
        if not re.match("https?://[^/]", url):
            raise SettingsError("address of the service", got=url, expected="http:// or https:// and a host")
        if not re.fullmatch("[!-~]+", token):
            raise SettingsError("operator token", expected="printable ASCII without blanks")
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/management/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(60.0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create_population(self, name: str) -> PopulationCreated:
        """Create a population; its enrolment token is in the answer and nowhere else."""
        return self._post("/populations", PopulationCreate(name=name), PopulationCreated)

    def populations(self) -> Iterator[PopulationStatus]:
        """All populations."""
        return self._pages("/populations", PopulationStatus)

    def publish_bundle(
        self, bundle: Bundle, progress: Callable[[str], None] = lambda _: None
    ) -> BundleStatus:
        """Upload the files that the service lacks, then announce the bundle."""
        files = {entry.sha256: bundle.path(name) for name, entry in bundle.manifest.files.items()}
        files[bundle.digest] = bundle.folder / MANIFEST_NAME
        for digest, path in files.items():
            # A HEAD has no body to say what is wrong: whatever it is, the PUT is told.
            if self._ask("HEAD", f"/objects/{digest}").is_success:
                continue
            progress(path.name)
            with path.open("rb") as body:
                self._send("PUT", f"/objects/{digest}", content=body)
        return self._post("/bundles", BundlePublish(digest=bundle.digest), BundleStatus)

    def bundles(self) -> Iterator[BundleStatus]:
        """All published bundles."""
        return self._pages("/bundles", BundleStatus)

    def manifest(self, digest: str) -> Manifest:
        """The manifest of a published bundle."""
        return parse_manifest(self._send("GET", f"/bundles/{_segment(digest)}/manifest").content)

    def create_run(self, request: RunCreate) -> RunStatus:
        """Create a run in state draft."""
        return self._post("/runs", request, RunStatus)

    def runs(self) -> Iterator[RunStatus]:
        """All runs."""
        return self._pages("/runs", RunStatus)

    def run(self, run_id: str) -> RunStatus:
        """One run."""
        return self._parse(self._send("GET", f"/runs/{_segment(run_id)}"), RunStatus)

    def move_run(self, run_id: str, verb: str) -> RunStatus:
        """Start, pause, resume or stop a run."""
        return self._parse(self._send("POST", f"/runs/{_segment(run_id)}:{verb}"), RunStatus)

    def rounds(self, run_id: str) -> Iterator[RoundStatus]:
        """The rounds of a run, attempts included, oldest first."""
        return self._pages(f"/runs/{_segment(run_id)}/rounds", RoundStatus)

    def assignments(self, run_id: str, round_index: int | None = None) -> Iterator[AssignmentStatus]:
        """The assignments of a run, or of one of its rounds."""
        query = {} if round_index is None else {"round_index": str(round_index)}
        return self._pages(f"/runs/{_segment(run_id)}/assignments", AssignmentStatus, query)

    def adapters(self, run_id: str) -> Iterator[AdapterVersionStatus]:
        """The adapter versions of a run, newest first."""
        return self._pages(f"/runs/{_segment(run_id)}/adapters", AdapterVersionStatus)

    def adapter_bytes(self, version: str) -> bytes:
        """The safetensors bytes of an adapter version at full rank."""
        return self._send("GET", f"/adapters/{_segment(version)}/content").content

    def frozen_bytes(self, version: str) -> bytes:
        """The safetensors bytes of the frozen adapter that belongs to a version."""
        return self._send("GET", f"/adapters/{_segment(version)}/frozen").content

    def devices(self, population: str | None = None) -> Iterator[DeviceDetails]:
        """All devices, or those of one population."""
        return self._pages(
            "/devices", DeviceDetails, {} if population is None else {"population": population}
        )

    def _post(self, path: str, message: BaseModel, answer: type[Answer]) -> Answer:
        body = message.model_dump_json().encode()
        return self._parse(self._send("POST", path, content=body, json_body=True), answer)

    def _pages(self, path: str, item: type[Item], query: dict[str, str] | None = None) -> Iterator[Item]:
        cursor: str | None = None
        while True:
            parameters = dict(query or {}) | ({"cursor": cursor} if cursor else {})
            page = self._parse(self._send("GET", path, params=parameters), Page[item])  # type: ignore[valid-type]
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | BinaryIO | None = None,
        params: dict[str, str] | None = None,
        json_body: bool = False,
    ) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if json_body else {}
        answer = self._ask(method, path, content=content, params=params, headers=headers)
        if not answer.is_success:
            raise error_of_answer(answer.status_code, answer.content, service_url=str(self._http.base_url))
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | BinaryIO | None = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, content=content, params=params, headers=headers)
        except httpx.HTTPError as error:
            raise ServiceUnreachable(
                f"no answer from {self._http.base_url}", got=error, expected="a running `hetlora serve`"
            ) from error

    def _parse(self, answer: httpx.Response, kind: type[Answer]) -> Answer:
        return parse_answer(kind, answer.content, service_url=str(self._http.base_url))


def _segment(name: str) -> str:
    """A name as one segment of a path, whatever stands in it."""
    if not name:
        raise SettingsError("a name is empty", expected="the id of a run, bundle or adapter version")
    return quote(name, safe="")


def connect(url: str, token: str) -> Operator:
    """Open a connection with the given token, or with the one that a service on this machine left."""
    if not token:
        path = Path(os.environ.get("HETLORA_DATA_DIR", "hetlora-data")) / TOKEN_FILE
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise AuthenticationFailed(
                "no operator token", got=f"neither --token nor {path}", expected="HETLORA_OPERATOR_TOKEN"
            ) from error
    return Operator(url, token)
