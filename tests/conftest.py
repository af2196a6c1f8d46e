"""One tiny model and its bundle, made once for the whole run."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from hetlora.bundle import Bundle, open_bundle

# Laws are searched for counterexamples, not timed: the machine may be busy.
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")

# The files that take longest, in this order, so that no core waits for one of them at the end.
FIRST = (
    "test_executorch_parity.py",
    "test_conformance.py",
    "test_memory_limits.py",
    "test_chaos.py",
    "test_rules_through_service.py",
    "test_engine_local.py",
    "test_engine_ray.py",
    "test_openapi_contract.py",
    "test_demo.py",
    "test_every_rule.py",
    "test_family_parity.py",
    "test_executorch_export.py",
    "test_replicas.py",
    "test_service_load.py",
    "test_step_processes.py",
    "test_without_torch.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage; what was imported is never any, and need not be walked again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


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
    """Gives a model folder and its bundle for every runtime, by its name in EXECUTORCH_LAYERS.

    Lowering one takes half a minute: each is made once for all processes of a run. Not to be written to.
    """
    from executorch_families import export_for_all

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    @cache
    def made(name: str) -> tuple[Path, Bundle]:
        root = shared / f"executorch-{name}"
        with FileLock(root.with_suffix(".lock")):
            if (root / "bundle").exists():  # it appears whole, or not at all
                return root / "model", open_bundle(root / "bundle")
            return export_for_all(name, root)

    return made
