"""The operator's side of the registry: aliases, notes, and what an adapter version came from."""

from __future__ import annotations

from collections.abc import Iterator

from hetlora.cli.management_http import ManagementHttp, segment
from hetlora.messages.registry import (
    AdapterDetails,
    AliasChange,
    AliasRemoval,
    AliasSet,
    AliasStatus,
    NoteCreate,
    SigningKey,
    VersionNote,
)
from hetlora.signed_manifest import SignedManifest


class RegistryRequests:
    """Requests of an operator about the registry; errors as `Operator`."""

    def __init__(self, http: ManagementHttp) -> None:
        self._http = http

    def aliases(self, population: str) -> Iterator[AliasStatus]:
        """All aliases of a population, by name."""
        return self._http.pages(_aliases(population), AliasStatus)

    def alias(self, population: str, alias: str) -> AliasStatus:
        """Where an alias points."""
        return self._http.get(f"{_aliases(population)}/{segment(alias)}", AliasStatus)

    def set_alias(self, population: str, alias: str, version: str, reason: str) -> AliasChange:
        """Point an alias at a version."""
        path = f"{_aliases(population)}/{segment(alias)}:set"
        return self._http.create(path, AliasSet(version=version, reason=reason), AliasChange)

    def remove_alias(self, population: str, alias: str, reason: str) -> AliasChange:
        """Take an alias away."""
        path = f"{_aliases(population)}/{segment(alias)}:remove"
        return self._http.create(path, AliasRemoval(reason=reason), AliasChange)

    def alias_changes(self, population: str, alias: str) -> Iterator[AliasChange]:
        """Where an alias pointed, newest first."""
        return self._http.pages(f"{_aliases(population)}/{segment(alias)}/history", AliasChange)

    def adapter(self, version: str) -> AdapterDetails:
        """State, lineage and aliases of a version."""
        return self._http.get(f"/adapters/{segment(version)}", AdapterDetails)

    def add_note(self, version: str, text: str) -> VersionNote:
        """Write a note on a version."""
        return self._http.create(f"/adapters/{segment(version)}/notes", NoteCreate(text=text), VersionNote)

    def notes(self, version: str) -> Iterator[VersionNote]:
        """The notes on a version, oldest first."""
        return self._http.pages(f"/adapters/{segment(version)}/notes", VersionNote)

    def manifest(self, version: str) -> SignedManifest:
        """The signed manifest of a version."""
        return self._http.get(f"/adapters/{segment(version)}/manifest", SignedManifest)

    def signing_keys(self) -> Iterator[SigningKey]:
        """The public halves of the keys that signed manifests."""
        return self._http.pages("/signing-keys", SigningKey)


def _aliases(population: str) -> str:
    return f"/populations/{segment(population)}/aliases"
