"""The aggregation service itself, on a free port of this machine, with the clock of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr
from quick_server import listening

from aggregator_service.app import create_app
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
        closing(open_service(settings, lambda: datetime.fromtimestamp(clock(), UTC))) as service,
        listening(create_app(service), settings) as url,
    ):
        yield url
