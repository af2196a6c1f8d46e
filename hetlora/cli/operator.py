"""The operator's side of the protocol: a client of `/management/v1`."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer

from hetlora.bundle import Bundle
from hetlora.cli.history_requests import HistoryRequests
from hetlora.cli.management_http import TIMEOUT_SECONDS, ManagementHttp, Moved, service_url, unwatched
from hetlora.cli.management_http import segment as _segment
from hetlora.cli.quarantine_requests import QuarantineRequests
from hetlora.cli.registry_requests import RegistryRequests
from hetlora.cli.rollout_requests import RolloutRequests
from hetlora.cli.trust import trusted
from hetlora.errors import AuthenticationFailed
from hetlora.manifest import MANIFEST_NAME, Manifest, parse_manifest
from hetlora.messages.common import Item, Page
from hetlora.messages.figures import RoundFigures
from hetlora.messages.fleet import (
    AdmissionPolicy,
    DeviceDecision,
    DeviceDetails,
    DevicePreauthorization,
    PopulationCreate,
    PopulationCreated,
    PopulationStatus,
    TokenRotation,
)
from hetlora.messages.management import (
    AdapterVersionStatus,
    AssignmentStatus,
    BundlePublish,
    BundleStatus,
    RoundStatus,
    RunCreate,
    RunStatus,
)
from hetlora.messages.operators import AuditEntry, KeyCreate, KeyCreated, KeyHolder, KeyStatus, OperatorRole
from hetlora.messages.privacy import PrivacyBudget, PrivacyStatus

UrlOption = Annotated[
    str,
    typer.Option("--url", envvar="HETLORA_URL", callback=service_url, help="Where the service listens."),
]
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


class Operator:
    """One operator's connection to a service; use as a context manager.

    Every method raises the error that the service's problem document tells of, or ServiceUnreachable.

    Args:
        verify: whom to trust to be the service, as `trust.trusted` gives it.
        timeout_seconds: how long the service may be silent.

    Raises:
        SettingsError: an address or token that no request can carry.
    """

    def __init__(
        self,
        url: str,
        token: str,
        verify: ssl.SSLContext | bool = True,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._http = ManagementHttp(url, token, verify, timeout_seconds)
        self.history = HistoryRequests(self._http)
        self.quarantine = QuarantineRequests(self._http)
        self.registry = RegistryRequests(self._http)
        self.rollouts = RolloutRequests(self._http)

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
        return self._http.create("/populations", message, PopulationCreated)

    def rotate_token(self, name: str, *, token_valid_seconds: float | None = None) -> PopulationCreated:
        """Replace a population's enrolment token; the new one is in the answer and nowhere else."""
        message = TokenRotation(token_valid_seconds=token_valid_seconds)
        return self._http.create(f"/populations/{_segment(name)}:rotate-token", message, PopulationCreated)

    def populations(self) -> Iterator[PopulationStatus]:
        """All populations."""
        return self._http.pages("/populations", PopulationStatus)

    def set_privacy_budget(self, population: str, budget: PrivacyBudget) -> PrivacyStatus:
        """Give a population a privacy budget, or another."""
        path = f"/populations/{_segment(population)}:set-privacy-budget"
        return self._http.post(path, budget, PrivacyStatus)

    def privacy(self, population: str) -> PrivacyStatus:
        """A population's privacy budget, and what is spent of it."""
        return self._http.get(f"/populations/{_segment(population)}/privacy", PrivacyStatus)

    def publish_bundle(
        self, bundle: Bundle, at: Callable[[str], None] = lambda _: None, moved: Moved = unwatched
    ) -> BundleStatus:
        """Upload the files that the service lacks, then announce the bundle.

        Args:
            at: is told the name of each file before it goes.
            moved: and how much of it went.
        """
        files = {entry.sha256: bundle.path(name) for name, entry in bundle.manifest.files.items()}
        files[bundle.digest] = bundle.folder / MANIFEST_NAME
        for digest, path in files.items():
            if self._http.has(f"/objects/{digest}"):  # where it cannot tell, the PUT is told why
                continue
            at(path.name)
            with path.open("rb") as body:
                self._http.put(f"/objects/{digest}", body, path.stat().st_size, moved)
        return self._http.post("/bundles", BundlePublish(digest=bundle.digest), BundleStatus)

    def bundles(self) -> Iterator[BundleStatus]:
        """All published bundles."""
        return self._http.pages("/bundles", BundleStatus)

    def manifest(self, digest: str) -> Manifest:
        """The manifest of a published bundle."""
        return parse_manifest(self._http.content(f"/bundles/{_segment(digest)}/manifest"))

    def create_run(self, request: RunCreate) -> RunStatus:
        """Create a run in state draft."""
        return self._http.create("/runs", request, RunStatus)

    def runs(self) -> Iterator[RunStatus]:
        """All runs, newest first."""
        return self._http.pages("/runs", RunStatus, {"newest_first": "true"})

    def run(self, run_id: str) -> RunStatus:
        """One run."""
        return self._http.get(f"/runs/{_segment(run_id)}", RunStatus)

    def move_run(self, run_id: str, verb: str) -> RunStatus:
        """Start, pause, resume or stop a run."""
        return self._http.post(f"/runs/{_segment(run_id)}:{verb}", None, RunStatus)

    def rounds(self, run_id: str) -> Iterator[RoundStatus]:
        """The rounds of a run, attempts included, oldest first."""
        return self._http.pages(f"/runs/{_segment(run_id)}/rounds", RoundStatus)

    def figures(self, run_id: str) -> Iterator[RoundFigures]:
        """What the rounds of a run came to, attempts included, oldest first."""
        return self._http.pages(f"/runs/{_segment(run_id)}/figures", RoundFigures)

    def assignments(self, run_id: str, round_index: int | None = None) -> Iterator[AssignmentStatus]:
        """The assignments of a run, or of one of its rounds."""
        query = {} if round_index is None else {"round_index": str(round_index)}
        return self._http.pages(f"/runs/{_segment(run_id)}/assignments", AssignmentStatus, query)

    def adapters(self, run_id: str) -> Iterator[AdapterVersionStatus]:
        """The adapter versions of a run, newest first."""
        return self._http.pages(f"/runs/{_segment(run_id)}/adapters", AdapterVersionStatus)

    def adapter_bytes(self, version: str, moved: Moved = unwatched) -> bytes:
        """The safetensors bytes of an adapter version at full rank."""
        return self._http.content(f"/adapters/{_segment(version)}/content", moved)

    def frozen_bytes(self, version: str, moved: Moved = unwatched) -> bytes:
        """The safetensors bytes of the frozen adapter that belongs to a version."""
        return self._http.content(f"/adapters/{_segment(version)}/frozen", moved)

    def devices(self, population: str | None = None) -> Iterator[DeviceDetails]:
        """All devices, or those of one population."""
        return self._http.pages(
            "/devices", DeviceDetails, {} if population is None else {"population": population}
        )

    def page(self, path: str, item: type[Item], query: Mapping[str, str] | None = None) -> Page[Item]:
        """One page of a listing, for whoever shows pages; `path` comes after `/management/v1`."""
        return self._http.page(path, item, query)

    def whoami(self) -> KeyHolder:
        """Whose key this is, and its role."""
        return self._http.get("/whoami", KeyHolder)

    def create_key(self, name: str, role: OperatorRole) -> KeyCreated:
        """Create a key for an operator; its token is in the answer and nowhere else."""
        return self._http.create("/keys", KeyCreate(name=name, role=role), KeyCreated)

    def keys(self) -> Iterator[KeyStatus]:
        """All keys, those that were revoked among them."""
        return self._http.pages("/keys", KeyStatus)

    def revoke_key(self, key_id: str) -> KeyStatus:
        """Make a key open nothing from now on."""
        return self._http.post(f"/keys/{_segment(key_id)}:revoke", None, KeyStatus)

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
        return self._http.pages("/audit", AuditEntry, given)

    def preauthorize(self, message: DevicePreauthorization) -> DeviceDetails:
        """Have a device accepted when it comes, without a token."""
        return self._http.post("/devices:preauthorize", message, DeviceDetails)

    def decide(self, device_id: str, decision: DeviceDecision) -> DeviceDetails:
        """Bring a device to another state."""
        return self._http.post(f"/devices/{_segment(device_id)}:decide", decision, DeviceDetails)


def _moment(time: datetime | None) -> str | None:
    if time is None:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def connect(
    url: str, token: str, ca_file: Path | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> Operator:
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
    return Operator(url, token, trusted(ca_file), timeout_seconds)
