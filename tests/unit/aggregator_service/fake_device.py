"""A device that signs as docs/protocol.md says."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hetlora.adapter import Adapter
from hetlora.digest import sha256_of
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Plan
from hetlora.signature import SignatureParameters, content_digest, signature_base, signature_header
from hetlora.tensors import adapter_to_bytes

CAPABILITIES = {
    "source": "given",
    "cores": 2,
    "memory_total_bytes": 8_000_000_000,
    "memory_available_bytes": 4_000_000_000,
    "matmul_flops_per_second": 1e9,
    "disk_free_bytes": 1_000_000_000,
}
REPORT = {
    "example_count": 20,
    "steps": 3,
    "first_loss": 0.75,
    "last_loss": 0.5,
    "training_seconds": 1.5,
    "peak_memory_bytes": 1000,
    "downloaded_bytes": 2000,
}


@dataclass
class FakeDevice:
    """A device that signs its requests; `call` expects success."""

    http: httpx.Client
    clock: Callable[[], datetime]
    seed: int = 1
    nonces: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(_seed_bytes(self.seed))
        public = self.key.public_key().public_bytes_raw()
        self.public_key = base64.b64encode(public).decode()
        self.device_id = sha256_of(public)[:32]
        self.nonces = (f"nonce-{time.monotonic_ns()}-{number:06}" for number in range(10**6))

    def signed(self, method: str, path: str, body: bytes = b"", **changes: Any) -> dict[str, str]:
        """Headers of a request; `changes` spoil it: created, nonce, key_id, digest."""
        digest = changes.get("digest", sha256_of(body))
        plain, _, query = path.partition("?")
        parameters = SignatureParameters(
            created=changes.get("created", int(self.clock().timestamp())),
            nonce=changes.get("nonce", next(self.nonces)),
            key_id=changes.get("key_id", self.device_id),
        )
        base = signature_base(parameters, method=method, path=plain, query=query, body_sha256=digest)
        return {
            "Content-Type": "application/json",
            "Content-Digest": content_digest(digest),
            "Signature-Input": parameters.header(),
            "Signature": signature_header(self.key.sign(base)),
        }

    def send(
        self,
        method: str,
        path: str,
        message: Any = None,
        *,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        **changes: Any,
    ) -> httpx.Response:
        path = f"/device/v1{path}"
        body = json.dumps(message).encode() if message is not None else content
        all_headers = {**self.signed(method, path, body, **changes), **(headers or {})}
        return self.http.request(method, path, content=body, headers=all_headers)

    def call(self, method: str, path: str, message: Any = None, **options: Any) -> Any:
        answer = self.send(method, path, message, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def enrol(self, token: str, population: str = "keyboard") -> FakeDevice:
        self.call(
            "POST",
            "/devices",
            {
                "population": population,
                "enrolment_token": token,
                "public_key": self.public_key,
                "name": f"device {self.seed}",
            },
        )
        return self

    def check_in(self, **changes: Any) -> Any:
        message = {
            "protocol_version": 1,
            "sdk_version": "0.1.0",
            "population": "keyboard",
            "capabilities": CAPABILITIES,
            "example_count": 20,
            **changes,
        }
        return self.call("POST", "/check-ins", message)

    def offer(self) -> Any:
        answer = self.check_in()
        assert answer["offer"] is not None, answer
        return answer["offer"]

    def started(self, rank: int = 2) -> str:
        """The id of an assignment that this device has taken at a rank."""
        assignment_id = str(self.offer()["assignment_id"])
        self.call("POST", f"/assignments/{assignment_id}:start", {"rank": rank})
        return assignment_id

    def upload(self, assignment_id: str, update: Adapter | bytes, **options: Any) -> httpx.Response:
        data = update if isinstance(update, bytes) else adapter_to_bytes(update)
        return self.send("PUT", f"/assignments/{assignment_id}/update", content=data, **options)

    def submit(
        self, assignment_id: str, update: Adapter, changes: dict[str, Any] | None = None
    ) -> httpx.Response:
        return self.send("POST", f"/assignments/{assignment_id}:submit", report_of(update) | (changes or {}))

    def started_plan(self, rank: int) -> Plan:
        """The plan of an offer that this device has taken at a rank."""
        path = f"/assignments/{self.offer()['assignment_id']}:start"
        return Plan.model_validate(self.call("POST", path, {"rank": rank}))

    def fetched(self, ref: ObjectRef) -> bytes:
        """An object of a plan."""
        answer = self.send("GET", f"/objects/{ref.sha256}")
        assert answer.is_success, answer.text
        return answer.content

    def hand_in(self, plan: Plan, data: bytes, rank: int) -> Any:
        """Upload an update of any form and report it; answers the receipt."""
        answer = self.upload(plan.assignment_id, data)
        assert answer.is_success, answer.text
        update = {"sha256": sha256_of(data), "size_bytes": len(data)}
        report = REPORT | {"update": update, "rank": rank}
        return self.call("POST", f"/assignments/{plan.assignment_id}:submit", report)

    def deliver(self, update: Adapter, rank: int = 2) -> Any:
        """Take an offer and hand in an update; answers the receipt."""
        assignment_id = self.started(rank)
        assert self.upload(assignment_id, update).is_success
        answer = self.submit(assignment_id, update)
        assert answer.is_success, answer.text
        return answer.json()


def _seed_bytes(seed: int) -> bytes:
    return bytes([seed]) * 32 if seed < 256 else seed.to_bytes(32, "big")


def report_of(update: Adapter) -> dict[str, Any]:
    data = adapter_to_bytes(update)
    return REPORT | {"update": {"sha256": sha256_of(data), "size_bytes": len(data)}, "rank": update.rank}
