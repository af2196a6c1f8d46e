"""The aggregation service itself, on a free port of this machine, with the clock of a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from aggregator_service.app import create_app
from aggregator_service.server import listen
from aggregator_service.service import open_service
from aggregator_service.settings import Settings

TOKEN = "operator-token-of-the-tests"


@contextmanager
def real_service(data_dir: Path, clock: Callable[[], float]) -> Iterator[str]:
    """Its address, for as long as the block lasts; operators come with TOKEN."""
    settings = Settings(
        data_dir=data_dir, port=0, operator_token=SecretStr(TOKEN), worker_interval_seconds=0.05
    )
    with (
        listen(settings) as listener,
        closing(open_service(settings, lambda: datetime.fromtimestamp(clock(), UTC))) as service,
    ):
        config = uvicorn.Config(
            create_app(service), log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the service did not start"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
