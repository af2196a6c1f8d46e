"""The bundle of a run: a digest, or a folder that is published if need be."""

from __future__ import annotations

import re
from pathlib import Path

from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.operator import Operator
from hetlora.cli.progress import work
from hetlora.errors import SettingsError
from hetlora.manifest import Manifest
from hetlora.messages.management import BundleStatus


def publish_folder(operator: Operator, bundle: Bundle, *, as_json: bool) -> BundleStatus:
    """Publish a bundle, and say how far that has come."""
    with work("Publishing", as_json=as_json) as told:
        return operator.publish_bundle(bundle, lambda name: told.at(f"Publishing {name}"), told.moved)


def published(operator: Operator, bundle: str, *, as_json: bool) -> tuple[str, Manifest]:
    """The digest and manifest of a bundle, which is published if it is a folder.

    Raises:
        SettingsError: neither a folder nor a digest.
    """
    folder = Path(bundle)
    if folder.is_dir():
        opened = open_bundle(folder)
        return publish_folder(operator, opened, as_json=as_json).digest, opened.manifest
    if not re.fullmatch("[0-9a-f]{64}", bundle):
        raise SettingsError(
            "no such bundle", got=bundle, expected="a bundle folder, or the digest of a published one"
        )
    return bundle, operator.manifest(bundle)
