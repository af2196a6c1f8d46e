"""A bundle of a few bytes, an operator, and devices that sign as docs/protocol.md says."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.cost import CostModel, StepCost
from hetlora.digest import sha256_of
from hetlora.manifest import (
    BaseModelInfo,
    GraphFiles,
    Manifest,
    OptimizerInfo,
    TensorInput,
    ToolVersions,
)
from hetlora.messages.common import ObjectRef
from hetlora.signature import SignatureParameters, content_digest, signature_base, signature_header
from hetlora.tensors import adapter_to_bytes

TOKEN = "operator-token-of-the-tests"
# Two modules, 2 x 3 and 3 x 2: widths that no test can mix up.
SPEC = AdapterSpec((ModuleSpec("key", 3, 2), ModuleSpec("query", 2, 3)), scaling=2.0, max_rank=2)
FILES = {
    name: f"bytes of {name}".encode()
    for name in (
        "training.onnx",
        "eval.onnx",
        "optimizer.onnx",
        "inference.onnx",
        "base.bin",
        "tokenizer.json",
    )
}
CAPABILITIES = {
    "source": "given",
    "cores": 2,
    "memory_total_bytes": 8_000_000_000,
    "memory_available_bytes": 4_000_000_000,
    "matmul_flops_per_second": 1e9,
    "disk_free_bytes": 1_000_000_000,
}


def make_manifest() -> Manifest:
    return Manifest(
        schema_version=1,
        task="text-classification",
        labels=("no", "yes"),
        max_tokens=64,
        base_model=BaseModelInfo(id="tiny", revision=None, sha256="0" * 64, parameters=12),
        adapter=SPEC,
        inputs=(TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens")),),
        optimizer=OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0),
        graphs=GraphFiles(
            training="training.onnx",
            eval="eval.onnx",
            optimizer="optimizer.onnx",
            inference="inference.onnx",
            base_weights="base.bin",
            tokenizer="tokenizer.json",
        ),
        cost_model=CostModel(
            flops=StepCost(per_token=1),
            written_bytes=StepCost(per_token=1),
            live_bytes=(StepCost(per_token=1),),
            most_chunk_rows=0,
            graph_nodes=1,
            base_weight_bytes=13,
            adapter_bytes_per_rank=40,
        ),
        versions=ToolVersions(hetlora="0.1.0", onnx="1.17.0", onnxruntime="1.19.2", opset=17, ir_version=9),
        files={name: ObjectRef(sha256=sha256_of(data), size_bytes=len(data)) for name, data in FILES.items()},
    )


def make_adapter(rank: int, scale: float = 1.0, spec: AdapterSpec = SPEC) -> Adapter:
    """All ones times `scale` in every factor."""
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                np.full((rank, module.in_features), scale, dtype=np.float32),
                np.full((module.out_features, rank), scale, dtype=np.float32),
            )
            for module in spec.modules
        },
    )


def random_adapter(rank: int, seed: int, spec: AdapterSpec = SPEC) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                rng.standard_normal((rank, module.in_features)).astype(np.float32),
                rng.standard_normal((module.out_features, rank)).astype(np.float32),
            )
            for module in spec.modules
        },
    )


@dataclass
class FakeClock:
    """A clock that moves only when told to."""

    now: datetime = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Operator:
    """Requests of `/management/v1`; `call` expects success."""

    http: httpx.Client
    token: str = TOKEN

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return self.http.request(method, f"/management/v1{path}", headers=headers, **options)

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = self.send(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def put(self, data: bytes) -> str:
        self.call("PUT", f"/objects/{sha256_of(data)}", content=data)
        return sha256_of(data)

    def publish(self) -> str:
        for data in FILES.values():
            self.put(data)
        digest = self.put(make_manifest().to_json())
        self.call("POST", "/bundles", json={"digest": digest})
        return digest

    def publish_with_adapter(self, adapter: Adapter) -> str:
        """The same bundle, with an adapter that runs begin with."""
        data = adapter_to_bytes(adapter)
        self.put(data)
        entry = ObjectRef(sha256=sha256_of(data), size_bytes=len(data))
        manifest = make_manifest()
        for plain in FILES.values():
            self.put(plain)
        changed = manifest.model_copy(
            update={"initial_adapter": "adapter.st", "files": {**manifest.files, "adapter.st": entry}}
        )
        digest = self.put(changed.to_json())
        self.call("POST", "/bundles", json={"digest": digest})
        return digest

    def population(self, name: str = "keyboard") -> str:
        return str(self.call("POST", "/populations", json={"name": name})["enrolment_token"])

    def run(self, digest: str, start: bool = True, population: str = "keyboard", **settings: Any) -> str:
        settings = {"rounds": 1, "goal_count": 1, "over_selection": 1.0, "max_rank": 2, **settings}
        body = {"population": population, "bundle": digest, "settings": settings}
        run_id = str(self.call("POST", "/runs", json=body)["run_id"])
        if start:
            self.call("POST", f"/runs/{run_id}:start")
        return run_id

    def items(self, path: str) -> list[dict[str, Any]]:
        """All items of a listing."""
        page = self.call("GET", path)
        assert page["next_cursor"] is None
        return list(page["items"])

    def wait_for(self, path: str, condition: Callable[[Any], bool], seconds: float = 10.0) -> Any:
        """Ask until the answer is as wished."""
        deadline = time.monotonic() + seconds
        while not condition(answer := self.call("GET", path)):
            assert time.monotonic() < deadline, answer
            time.sleep(0.01)
        return answer

    def committed(self, run_id: str, rounds: int = 1) -> Any:
        return self.wait_for(f"/runs/{run_id}", lambda run: run["rounds_committed"] >= rounds)


@dataclass
class FakeDevice:
    """A device that signs its requests; `call` expects success."""

    http: httpx.Client
    clock: Callable[[], datetime]
    seed: int = 1
    nonces: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(bytes([self.seed]) * 32)
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

    def deliver(self, update: Adapter, rank: int = 2) -> Any:
        """Take an offer and hand in an update; answers the receipt."""
        assignment_id = self.started(rank)
        assert self.upload(assignment_id, update).is_success
        answer = self.submit(assignment_id, update)
        assert answer.is_success, answer.text
        return answer.json()


def report_of(update: Adapter) -> dict[str, Any]:
    data = adapter_to_bytes(update)
    return {
        "update": {"sha256": sha256_of(data), "size_bytes": len(data)},
        "rank": update.rank,
        "example_count": 20,
        "steps": 3,
        "first_loss": 0.75,
        "last_loss": 0.5,
        "training_seconds": 1.5,
        "peak_memory_bytes": 1000,
        "downloaded_bytes": 2000,
    }


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, after a look at its shape."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] == f"urn:hetlora:error:{body['code']}"
    assert body["title"]
    assert body["detail"]
    return answer.status_code, body["code"]
