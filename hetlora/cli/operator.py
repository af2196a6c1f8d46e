"""The operator's side of the protocol: a client of `/management/v1`."""

from __future__ import annotations

import os
import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Final, Self
from urllib.parse import quote

import httpx
import typer
from pydantic import BaseModel

from hetlora.bundle import Bundle
from hetlora.cli.trust import trusted
from hetlora.errors import AuthenticationFailed, ServiceUnreachable, SettingsError
from hetlora.manifest import MANIFEST_NAME, Manifest, parse_manifest
from hetlora.messages.common import Answer, Item, Page, error_of_answer, parse_answer
from hetlora.messages.management import (
    AdapterVersionStatus,
    AdmissionPolicy,
    AssignmentStatus,
    BundlePublish,
    BundleStatus,
    DeviceDecision,
    DeviceDetails,
    DevicePreauthorization,
    PopulationCreate,
    PopulationCreated,
    PopulationStatus,
    RoundStatus,
    RunCreate,
    RunStatus,
    TokenRotation,
)
from hetlora.messages.operators import AuditEntry, KeyCreate, KeyCreated, KeyStatus, OperatorRole

UrlOption = Annotated[str, typer.Option("--url", envvar="HETLORA_URL", help="Where the service listens.")]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="HETLORA_OPERATOR_TOKEN",
        help="An operator's token; without it, the one that `hetlora serve` left in ./hetlora-data is read.",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8440"
TOKEN_FILE = "operator-token"
# An answer that was lost on its way is asked for again, under the same idempotency key.
CREATE_TRIES = 3
RETRY_SECONDS = 0.5


class Operator:
    """One operator's connection to a service; use as a context manager.

    Every method raises the error that the service's problem document tells of, or ServiceUnreachable.

    Args:
        verify: whom to trust to be the service, as `trust.trusted` gives it.

    Raises:
        SettingsError: an address or token that no request can carry.
    """

    def __init__(self, url: str, token: str, verify: ssl.SSLContext | bool = True) -> None:
        if not re.match("https?://[^/]", url):
            raise SettingsError("address of the service", got=url, expected="http:// or https:// and a host")
        if not re.fullmatch("[!-~]+", token):
            raise SettingsError("operator token", expected="printable ASCII without blanks")
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/management/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(60.0),
            verify=verify,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create_population(
        self, name: str, *, admission: AdmissionPolicy = "token", token_valid_seconds: float | None = None
    ) -> PopulationCreated:
        """Create a population; its enrolment token is in the answer and nowhere else."""
        message = PopulationCreate(name=name, admission=admission, token_valid_seconds=token_valid_seconds)
        return self._create("/populations", message, PopulationCreated)

    def rotate_token(self, name: str, *, token_valid_seconds: float | None = None) -> PopulationCreated:
        """Replace a population's enrolment token; the new one is in the answer and nowhere else."""
        message = TokenRotation(token_valid_seconds=token_valid_seconds)
        return self._post(f"/populations/{_segment(name)}:rotate-token", message, PopulationCreated)

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
        return self._create("/runs", request, RunStatus)

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

    def create_key(self, name: str, role: OperatorRole) -> KeyCreated:
        """Create a key for an operator; its token is in the answer and nowhere else."""
        return self._create("/keys", KeyCreate(name=name, role=role), KeyCreated)

    def keys(self) -> Iterator[KeyStatus]:
        """All keys, those that were revoked among them."""
        return self._pages("/keys", KeyStatus)

    def revoke_key(self, key_id: str) -> KeyStatus:
        """Make a key open nothing from now on."""
        return self._parse(self._send("POST", f"/keys/{_segment(key_id)}:revoke"), KeyStatus)

    def audit(
        self,
        *,
        key_id: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[AuditEntry]:
        """What operators asked to be written, newest first; times without a zone are UTC."""
        asked = {"key_id": key_id, "subject": subject, "since": _moment(since), "until": _moment(until)}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._pages("/audit", AuditEntry, given)

    def preauthorize(self, message: DevicePreauthorization) -> DeviceDetails:
        """Have a device accepted when it comes, without a token."""
        return self._post("/devices:preauthorize", message, DeviceDetails)

    def decide(self, device_id: str, decision: DeviceDecision) -> DeviceDetails:
        """Bring a device to another state."""
        return self._post(f"/devices/{_segment(device_id)}:decide", decision, DeviceDetails)

    def _post(self, path: str, message: BaseModel, answer: type[Answer]) -> Answer:
        return self._parse(self._send("POST", path, content=_json(message), headers=_JSON), answer)

    def _create(self, path: str, message: BaseModel, answer: type[Answer]) -> Answer:
        """Ask for something to be made, once, however often the answer is lost."""
        headers = _JSON | {"Idempotency-Key": str(uuid.uuid4())}
        for _ in range(CREATE_TRIES - 1):
            try:
                return self._parse(self._send("POST", path, content=_json(message), headers=headers), answer)
            except ServiceUnreachable as error:
                # Nobody listens: nothing was made, and asking again is the operator's to decide.
                if isinstance(error.__cause__, httpx.ConnectError):
                    raise
                time.sleep(RETRY_SECONDS)
        return self._parse(self._send("POST", path, content=_json(message), headers=headers), answer)

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
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
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
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, content=content, params=params, headers=headers)
        except httpx.HTTPError as error:
            raise ServiceUnreachable(
                f"no answer from {self._http.base_url}", got=error, expected="a running `hetlora serve`"
            ) from error

    def _parse(self, answer: httpx.Response, kind: type[Answer]) -> Answer:
        return parse_answer(kind, answer.content, service_url=str(self._http.base_url))


_JSON: Final = {"Content-Type": "application/json"}


def _json(message: BaseModel) -> bytes:
    return message.model_dump_json().encode()


def _moment(time: datetime | None) -> str | None:
    if time is None:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def _segment(name: str) -> str:
    """A name as one segment of a path, whatever stands in it."""
    if not name:
        raise SettingsError("a name is empty", expected="the id of a run, bundle or adapter version")
    return quote(name, safe="")


def connect(url: str, token: str, ca_file: Path | None = None) -> Operator:
    """Open a connection with the given token, or with the one that a service on this machine left.

    Raises:
        AuthenticationFailed: there is no token.
        SettingsError: see `Operator` and `trusted`.
    """
    if not token:
        path = Path(os.environ.get("HETLORA_DATA_DIR", "hetlora-data")) / TOKEN_FILE
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise AuthenticationFailed(
                "no operator token", got=f"neither --token nor {path}", expected="HETLORA_OPERATOR_TOKEN"
            ) from error
    return Operator(url, token, trusted(ca_file))
