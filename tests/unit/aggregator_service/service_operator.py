"""An operator who publishes, enrols and runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from service_bundle import FILES, SPEC, make_manifest

from hetlora.adapter import Adapter, AdapterSpec
from hetlora.digest import sha256_of
from hetlora.manifest import Manifest
from hetlora.messages.common import ObjectRef
from hetlora.tensors import adapter_to_bytes

TOKEN = "operator-token-of-the-tests"


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

    def publish(self, spec: AdapterSpec = SPEC) -> str:
        return self.publish_manifest(make_manifest(spec))

    def publish_manifest(self, manifest: Manifest) -> str:
        """A bundle with the usual files."""
        for data in FILES.values():
            self.put(data)
        digest = self.put(manifest.to_json())
        self.call("POST", "/bundles", json={"digest": digest})
        return digest

    def publish_with_adapter(self, adapter: Adapter) -> str:
        """The same bundle, with an adapter that runs begin with."""
        data = adapter_to_bytes(adapter)
        self.put(data)
        entry = ObjectRef(sha256=sha256_of(data), size_bytes=len(data))
        manifest = make_manifest()
        files = {**manifest.files, "adapter.st": entry}
        return self.publish_manifest(
            manifest.model_copy(update={"initial_adapter": "adapter.st", "files": files})
        )

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
            time.sleep(0.03)  # a question costs more than what is waited for
        return answer

    def published(self, version: str) -> tuple[bytes, bytes | None]:
        """The bytes of an adapter version, and of the frozen adapter beside it."""
        content = self.send("GET", f"/adapters/{version}/content")
        frozen = self.send("GET", f"/adapters/{version}/frozen")
        assert content.is_success, content.text
        assert frozen.status_code in (200, 404), frozen.text
        return content.content, frozen.content if frozen.is_success else None

    def committed(self, run_id: str, rounds: int = 1) -> Any:
        return self.wait_for(f"/runs/{run_id}", lambda run: run["rounds_committed"] >= rounds)
