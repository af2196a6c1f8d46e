"""The fleet that the end-to-end tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet

from hetlora.bundle import Bundle


@pytest.fixture(scope="session")
def bundle_for(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """The tiny model as in `tiny_bundle`, exported for some runtimes once. Not to be written to."""
    from export.bundle_writer import export_bundle

    @cache
    def exported(*runtimes: str) -> Bundle:
        return export_bundle(
            str(tiny_model_folder),
            tmp_path_factory.mktemp("-".join(runtimes)) / "bundle",
            labels=["weather", "food", "sport"],
            targets=["query", "value"],
            max_rank=8,
            max_tokens=32,
            runtimes=runtimes,
        )

    return exported


@pytest.fixture(scope="session")
def web_bundle(bundle_for: Callable[..., Bundle]) -> Bundle:
    """The tiny model with what a page trains with; not to be written to."""
    return bundle_for("web")


@pytest.fixture(scope="session")
def phone_bundle(bundle_for: Callable[..., Bundle]) -> Bundle:
    """The tiny model with what phones train with too; not to be written to."""
    return bundle_for("onnx", "android")


@pytest.fixture
def fleet(tmp_path: Path, tiny_bundle: Bundle) -> Iterator[TinyFleet]:
    """A running service with the tiny bundle published; its devices end with the test."""
    with TinyFleet(tmp_path, tiny_bundle) as fleet:
        yield fleet
