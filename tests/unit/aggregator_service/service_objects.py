"""What a service on local files has in its store."""

from __future__ import annotations

from pathlib import Path

from aggregator_service.service import Service


def kept_updates(service: Service) -> list[Path]:
    """The files of all updates."""
    return [path for path in (service.settings.data_dir / "updates").rglob("*") if path.is_file()]


def stored_parts(service: Service) -> list[Path]:
    """The files of all parts of uploads."""
    return [path for path in (service.settings.data_dir / "uploads").rglob("*") if path.is_file()]
