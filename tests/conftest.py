"""One tiny model and its bundle, made once for the whole run."""

from __future__ import annotations

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
