"""What a service on local files has in its store."""

from __future__ import annotations

from pathlib import Path

from aggregator_service.artifacts.objects import touch
from aggregator_service.service import Service
from hetlora.digest import sha256_of
from hetlora.messages.common import ObjectRef


def put(service: Service, data: bytes) -> ObjectRef:
    """Store an object of these bytes."""
    touch(service, [sha256_of(data)])
    return service.objects.put(data)


def kept_updates(service: Service) -> list[Path]:
    """The files of all updates."""
    return [path for path in (service.settings.data_dir / "updates").rglob("*") if path.is_file()]


def stored_parts(service: Service) -> list[Path]:
    """The files of all parts of uploads."""
    return [path for path in (service.settings.data_dir / "uploads").rglob("*") if path.is_file()]
