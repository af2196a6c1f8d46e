"""One tiny model and its bundle, made once for the whole run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from hetlora.bundle import Bundle


# The imports stand inside: torch and its kin take seconds that most tests need not wait for.
@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local Hugging Face folder of a two-layer BERT with 32 features."""
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model with three labels, LoRA on query and value, ranks up to 8. Not to be written to."""
    from export.bundle_writer import export_bundle

    return export_bundle(
        str(tiny_model_folder),
        tmp_path_factory.mktemp("bundles") / "tiny",
        labels=["weather", "food", "sport"],
        targets=["query", "value"],
        max_rank=8,
        max_tokens=32,
    )


@pytest.fixture(scope="session")
def executorch_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Bundle]]:
    """Gives a model folder and its bundle with both kinds of programs, by its name in EXECUTORCH_LAYERS.

    Lowering one takes half a minute: each is made once for the whole run, and is not to be written to.
    """
    from executorch_families import export_both

    @cache
    def made(name: str) -> tuple[Path, Bundle]:
        return export_both(name, tmp_path_factory.mktemp(name))

    return made
