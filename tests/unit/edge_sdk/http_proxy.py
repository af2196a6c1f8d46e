"""A proxy as companies have them: CONNECT for https, whole addresses for http, a password if it wants one."""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping, Sequence

from relay import Relay

BLANK_LINE = b"\r\n\r\n"


class HttpProxy(Relay):
    """Knows the addresses of `hosts` alone, as the only one here: to devices these names mean nothing.

    Args:
        hosts: where each host of a request is, with its port.
        password: as "user:password"; None lets everybody through.
        rewrite: pairs of bytes; in the head of a request the second of each is put in place of the first.

    Attributes:
        asked: the first line of each request to the proxy itself.
        carried: what came after a CONNECT was granted, from all devices.
    """

    def __init__(
        self,
        hosts: Mapping[str, tuple[str, int]],
        password: str | None = None,
        rewrite: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__()
        self._hosts, self._rewrite = hosts, rewrite
        self._wanted = None if password is None else base64.b64encode(password.encode())
        self.asked: list[str] = []
        self.carried = b""

    def handle(self, device: socket.socket) -> None:
        head, rest = read_head(device)
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        self.asked.append(f"{method.decode()} {target.decode()}")
        if self._wanted is not None and b"Proxy-Authorization: Basic " + self._wanted not in head:
            refuse(
                device, b"407 Proxy Authentication Required", b"Proxy-Authenticate: Basic realm=office\r\n"
            )
            return
        address = target if method == b"CONNECT" else target.split(b"/")[2]
        place = self._hosts.get(address.decode())
        if place is None:
            refuse(device, b"502 Bad Gateway")
        elif method == b"CONNECT":
            device.sendall(b"HTTP/1.1 200 Connection established" + BLANK_LINE)
            self.carry_both(device, self.connect(place), self._note)
        else:
            path = b"/" + target.split(b"/", 3)[3]
            head = head.replace(target, path, 1).replace(b"Connection: keep-alive", b"Connection: close")
            for before, after in self._rewrite:
                head = head.replace(before, after)
            service = self.connect(place)
            service.sendall(head + rest)
            self.carry_both(device, service)  # one request a connection: the service closes it

    def _note(self, piece: bytes) -> bytes:
        self.carried += piece
        return piece


def read_head(device: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request with its blank line, and what already came of the rest."""
    data = b""
    while BLANK_LINE not in data:
        piece = device.recv(4096)
        if not piece:
            raise ConnectionError("the device is gone")
        data += piece
    end = data.index(BLANK_LINE) + len(BLANK_LINE)
    return data[:end], data[end:]


def refuse(device: socket.socket, status: bytes, headers: bytes = b"") -> None:
    """Answer by the proxy itself, in a page, and close in good order."""
    page = b"<h1>Proxy</h1>"
    device.sendall(b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(page), page))
    device.shutdown(socket.SHUT_WR)
    while device.recv(4096):
        pass
