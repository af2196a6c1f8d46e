"""An adapter version with all that belongs to it, as commands write it in one form or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hetlora.adapter import Adapter, LoraFactors
from hetlora.cli.management_http import Moved, unwatched
from hetlora.cli.operator import Operator
from hetlora.cli.version_option import version_of
from hetlora.digest import sha256_of, verify_digest
from hetlora.errors import NotFound, SettingsError, UnavailableError
from hetlora.manifest import Manifest
from hetlora.messages.registry import AdapterDetails
from hetlora.plan_adapter import frozen_from_bytes
from hetlora.signed_manifest import SignedManifest
from hetlora.tensors import adapter_from_bytes


@dataclass(frozen=True, slots=True, eq=False)
class FetchedAdapter:
    """A version and its bundle; `frozen` are factors by module that belong to the model beside it.

    `signed` is missing where the service has no key to sign with.
    """

    details: AdapterDetails
    manifest: Manifest
    adapter: Adapter
    frozen: Mapping[str, LoraFactors]
    signed: SignedManifest | None

    @property
    def version(self) -> str:
        return self.details.status.version

    @property
    def factors(self) -> dict[str, LoraFactors]:
        """Both as one, of each module: what the model computes with."""
        return {name: _beside(own, self.frozen.get(name)) for name, own in self.adapter.factors.items()}

    @property
    def rank(self) -> int:
        """The highest of its modules, frozen ones counted in."""
        return max(own.rank for own in self.factors.values())

    @property
    def size_bytes(self) -> int:
        return sum(own.lora_A.nbytes + own.lora_B.nbytes for own in self.factors.values())


def fetch(operator: Operator, asked: str, version: str | None, moved: Moved = unwatched) -> FetchedAdapter:
    """The version that is asked for: of a run, its newest unless one is named; or POPULATION@ALIAS.

    Raises:
        NotFound: no such run, alias or version, a version of another run, or a run that has committed none.
        SettingsError: an alias and a version.
        DigestMismatch: other bytes than the service says.
    """
    wanted = _wanted(operator, asked, version)
    details = operator.registry.adapter(wanted)
    if "@" not in asked and details.status.run_id != asked:
        raise NotFound("the run has no such adapter version", got=wanted)
    manifest = operator.manifest(details.lineage.bundle)
    data = operator.adapter_bytes(wanted, moved)
    verify_digest(f"adapter {wanted}", got=sha256_of(data), expected=details.status.sha256)
    frozen: dict[str, LoraFactors] = {}
    if details.status.frozen is not None:
        beside = operator.frozen_bytes(wanted, moved)
        verify_digest(
            f"frozen adapter of {wanted}", got=sha256_of(beside), expected=details.status.frozen.sha256
        )
        frozen = frozen_from_bytes(beside, manifest.adapter)
    return FetchedAdapter(
        details, manifest, adapter_from_bytes(data, manifest.adapter), frozen, _signed(operator, wanted)
    )


def _wanted(operator: Operator, asked: str, version: str | None) -> str:
    if "@" in asked:
        if version is not None:
            raise SettingsError("an alias names a version", got=f"{asked} and --version {version}")
        return version_of(operator, asked)
    run = operator.run(asked)
    wanted = version or run.adapter_version
    if wanted is None or (version is None and run.rounds_committed == 0):
        raise NotFound(
            "the run has committed no adapter yet",
            got=f"state {run.state}",
            expected="a committed round, or --version for the initial adapter",
        )
    return wanted


def _signed(operator: Operator, version: str) -> SignedManifest | None:
    try:
        return operator.registry.manifest(version)
    except UnavailableError:  # a process without a key, which serves all the rest
        return None


def _beside(own: LoraFactors, other: LoraFactors | None) -> LoraFactors:
    """One pair of factors whose product is the sum of both products."""
    if other is None:
        return own
    lora_A = np.concatenate([own.lora_A, other.lora_A])
    return LoraFactors(lora_A, np.concatenate([own.lora_B, other.lora_B], axis=1))


def check_new_folder(out: Path) -> None:
    """Raise SettingsError unless a folder can be written there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError("--out must be a new or empty folder", got=out)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name.

    Raises:
        SettingsError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise SettingsError(
            "the folder cannot be written", got=error, expected="room, and leave to write there"
        ) from error
