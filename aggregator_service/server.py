"""The service as a process: a socket, uvicorn, and a stop that lets requests finish."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from contextlib import closing

import uvicorn

from aggregator_service.app import create_app
from aggregator_service.freed_memory import give_back_what_is_large
from aggregator_service.service import Clock, open_service, utc_now
from aggregator_service.settings import Settings
from aggregator_service.tls import check_exposure, tls_context
from hetlora.errors import PortInUse, SettingsError

log = logging.getLogger(__name__)

BACKLOG = 2048


def serve(
    settings: Settings, on_listening: Callable[[str], None] | None = None, *, clock: Clock = utc_now
) -> None:
    """Run the service until SIGTERM or SIGINT.

    Args:
        on_listening: called with the service's URL once its port is taken (port 0 takes any free one) and its
            data_dir is open.
        clock: tells the time to everything that the service does.

    Raises:
        PortInUse: somebody else listens there.
        SettingsError: an address that is not this machine's, or is open to others without TLS; a certificate,
            a data_dir or a folder of the page that cannot be used.
    """
    give_back_what_is_large()
    context = tls_context(settings)
    with listen(settings) as listener, closing(open_service(settings, clock)) as service:
        app = create_app(service)
        host, port = listener.getsockname()[:2]
        url = f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("listening=%s data_dir=%s", url, settings.data_dir)
        if on_listening is not None:
            on_listening(url)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            http="h11",  # bounds headers, as httptools does not
            loop="asyncio",  # tells when descriptors run out (`LoopFaults`), as uvloop does not
            timeout_graceful_shutdown=settings.shutdown_seconds,
            # Which server this is helps only those who look for its faults.
            server_header=False,
            ssl_context_factory=None if context is None else lambda config, default: context,
        )
        uvicorn.Server(config).run(sockets=[listener])


def listen(settings: Settings) -> socket.socket:
    """Take the port, before anything else is opened.

    Raises:
        PortInUse, SettingsError: see `serve`.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        check_exposure(settings, str(address[0]))
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # On Linux: how long a connection stands whose other end takes nothing more.
            patience = min(round(1000 * settings.body_timeout_seconds), 2**31 - 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        got = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                "the address to listen on is taken", got=got, expected="a free port; see HETLORA_PORT"
            ) from error
        raise SettingsError("cannot listen on this address", got=f"{got}: {error.strerror}") from error
    return listener
