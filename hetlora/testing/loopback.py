"""HTTP on a free port of this machine, for as long as a test lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from hetlora.errors import HetloraError
from hetlora.messages.common import problem_of


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came: `path` and `query` as they were signed, `headers` by names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, of any status and form."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_reply(error: HetloraError, headers: Mapping[str, str], status: int | None = None) -> Reply:
    """A refusal as a service tells it, under the error's own status unless another is given."""
    told = problem_of(error)
    body = told.model_copy(update={"status": status or told.status}).model_dump_json(exclude_none=True)
    return Reply(status or told.status, body.encode(), "application/problem+json", headers)


CUT: Final = Reply(0)  # no answer: the connection breaks off


class LoopbackServer:
    """Answers requests by a function, one at a time, from a thread of its own."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self._answer = answer
        self._one_at_a_time = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens.

        Raises:
            RuntimeError: it does not listen.
        """
        if self._server is None:
            raise RuntimeError("the fake service listens within its `with` block only")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Listen, until `stop`."""
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Close the port, and the connections with it."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer, lock = self._answer, self._one_at_a_time

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Else the system waits for more to send with the last bytes of an answer.
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    reply = answer(Request(self.command, path, query, headers, body))
                if reply is CUT:
                    self.close_connection = True
                else:
                    self._send(reply)

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:
                """Tests read what the service noted, not its log."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none; any other fault is the test's to see."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
