"""Pushes an exported adapter version to MLflow: a run with its files, and a version of a registered model.

Where MLflow is, its own variables say: MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hetlora.cli.parts import part
from hetlora.digest import sha256_of, sha256_of_file
from hetlora.messages.registry import AdapterDetails

FOLDER: Final = "adapter"  # of the run's artifacts
VERSION_TAG: Final = "hetlora.version"
CONTENT_TAG: Final = "hetlora.content_sha256"


def push(folder: Path, entry: AdapterDetails) -> str:
    """Push a folder as a version of the model that is named as the population; `models:/NAME/VERSION`.

    Lineage becomes parameters, figures and evaluation become metrics, and aliases are set as they stand now.
    The same files of the same version are pushed once.
    """
    with part("mlflow"):
        from mlflow import MlflowClient

    client = MlflowClient()
    name, content = entry.lineage.population, digest_of_folder(folder)
    found = _pushed(client, name, content, entry) or _push(client, folder, content, entry)
    for alias in entry.aliases:
        client.set_registered_model_alias(name, alias, found)
    return f"models:/{name}/{found}"


def digest_of_folder(folder: Path) -> str:
    """A digest over the names and bytes of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{sha256_of_file(path)} {path.relative_to(folder).as_posix()}\n" for path in files)
    return sha256_of("".join(lines).encode())


def _pushed(client: Any, name: str, content: str, entry: AdapterDetails) -> str | None:
    """The version of the model that has these files already."""
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    found = client.search_model_versions(f"name='{name}' and tags.`{CONTENT_TAG}`='{content}'")
    same = [own for own in found if own.tags.get(VERSION_TAG) == entry.status.version]
    return str(same[0].version) if same else None


def _push(client: Any, folder: Path, content: str, entry: AdapterDetails) -> str:
    name, version = entry.lineage.population, entry.status.version
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    tags = {VERSION_TAG: version, CONTENT_TAG: content}
    run = client.create_run(experiment_id, run_name=version, tags=tags)
    run_id = run.info.run_id
    for key, value in _parameters(entry):
        client.log_param(run_id, key, value)
    for key, number in _metrics(entry):
        client.log_metric(run_id, key, number)
    client.log_artifacts(run_id, str(folder), FOLDER)
    client.set_terminated(run_id)
    source = f"{run.info.artifact_uri}/{FOLDER}"
    # The last step: what a push left that was cut off is a run without a model, and the next makes another.
    return str(client.create_model_version(name, source, run_id, tags=tags).version)


def _parameters(entry: AdapterDetails) -> Iterator[tuple[str, str]]:
    yield "sha256", entry.status.sha256
    lineage = entry.lineage.model_dump(
        mode="json", exclude={"ranks", "privacy", "defence", "server_optimizer"}
    )
    for key, value in lineage.items():
        yield key, str(value["name"] if key == "rule" else value)


def _metrics(entry: AdapterDetails) -> Iterator[tuple[str, float]]:
    for name, value in entry.status.figures.items():
        yield f"figure/{name}", value
    for count in entry.lineage.ranks:
        yield f"rank/{count.rank}/taken", count.taken
        yield f"rank/{count.rank}/updated", count.updated
    if entry.lineage.privacy is not None:
        yield "privacy/epsilon", entry.lineage.privacy.epsilon
    evaluation = entry.status.evaluation
    if evaluation is not None and evaluation.figures is not None:
        for name, value in evaluation.figures.model_dump(exclude_none=True).items():
            yield f"evaluation/{name}", value
