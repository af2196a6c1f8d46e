"""The way to the service: whom to take for it, and what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from edge_sdk.transport.proxies import client_by_way_of
from edge_sdk.transport.tls import tls_context
from hetlora.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Way:
    """How a device reaches its service.

    Args:
        ca_file, tls_pins: whom to take for the service; see `tls_context`.
        proxy: by which to go there; see `client_by_way_of`.
        http: a connection layer of one's own, or of a test, in place of the three.

    Raises:
        SettingsError: `http` beside one of the others.
    """

    ca_file: Path | str | None = None
    tls_pins: Sequence[str] = ()
    proxy: str | None = field(default=None, repr=False)  # which may hold a password
    http: httpx.BaseTransport | None = None

    def __post_init__(self) -> None:
        if self.http is not None and (self.ca_file or self.tls_pins or self.proxy):
            raise SettingsError(
                "the way to the service is given twice",
                got="http, and ca_file, tls_pins or proxy",
                expected="one of them",
            )

    def client(self, service_url: str, **settings: Any) -> httpx.Client:
        """A client that goes this way to a service; `settings` are further arguments of `httpx.Client`.

        Raises:
            SettingsError: pins without https, or what stands in the way cannot be used.
            DependencyMissing: a SOCKS proxy without what httpx needs for it.
        """
        if self.http is not None:
            return httpx.Client(transport=self.http, base_url=service_url, **settings)
        if self.tls_pins and httpx.URL(service_url).scheme != "https":
            raise SettingsError("pins are of keys of TLS", got=service_url, expected="an https address")
        return client_by_way_of(
            self.proxy,
            tls_context(self.ca_file, self.tls_pins),
            lambda: tls_context(self.ca_file),
            base_url=service_url,
            **settings,
        )


STRAIGHT = Way()
