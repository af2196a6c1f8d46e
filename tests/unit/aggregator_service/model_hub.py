"""As much of the Hugging Face hub as a push of small files needs, in memory."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = "alice"
TOKEN = "hf_of-the-tests"


@dataclass
class ModelHub:
    """What was pushed: files of each repository, tags, and whether it is private."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.startswith("/api/models/"):
            owner, name, verb, *_ = path.removeprefix("/api/models/").split("/")
            return self._at(f"{owner}/{name}", verb, path.rpartition("/")[2], body)
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        return 404, {"error": path}

    def _create(self, asked: Any) -> tuple[int, Any]:
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        there = name in self.files
        self.files.setdefault(name, {})
        self.private[name] = asked["private"]
        return (409 if there else 200), {"url": f"{self.url}/{name}"}

    def _at(self, name: str, verb: str, last: str, body: bytes) -> tuple[int, Any]:
        if verb == "preupload":
            files = json.loads(body)["files"]
            modes = ({"path": own["path"], "uploadMode": "regular", "shouldIgnore": False} for own in files)
            return 200, {"files": list(modes)}
        if verb == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[name][line["value"]["path"]] = content
            return 200, {"commitUrl": f"{self.url}/{name}/commit/{'a' * 40}", "commitOid": "a" * 40}
        if verb == "tag":
            self.tags.setdefault(name, []).append(json.loads(body)["tag"])
            return 200, {}
        return 404, {"error": verb}


@contextmanager
def model_hub() -> Iterator[ModelHub]:
    """A hub that listens, and takes one token."""
    hub = ModelHub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("Content-Length")
            body = self.rfile.read(int(length)) if length else _chunks(self.rfile)
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            status, found = hub.answer(self.path, body) if known else (401, {"error": "who are you?"})
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def _chunks(stream: Any) -> bytes:
    data = b""
    while size := int(stream.readline(), 16):
        data += stream.read(size)
        stream.readline()
    stream.readline()
    return data
