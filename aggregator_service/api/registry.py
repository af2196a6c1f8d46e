"""`/management/v1`: aliases of populations, and all that is known of one adapter version."""

from __future__ import annotations

from sqlalchemy import select

from aggregator_service.api.errors import problems
from aggregator_service.api.operator_route import IdempotencyKeyOf, OperatorOf, operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, page_of
from aggregator_service.api.route import ServiceOf
from aggregator_service.api.views import adapter_version_status
from aggregator_service.registry.aliases import (
    alias_change,
    alias_status,
    check_population,
    get_alias,
    remove_alias,
    set_alias,
)
from aggregator_service.registry.lineage import registry_entry
from aggregator_service.registry.notes import add_note, count_notes, version_note
from aggregator_service.registry.signing import signed, signing_key
from aggregator_service.registry.versions import get_version
from aggregator_service.storage.registry_tables import AliasChangeRow, AliasRow, SigningKeyRow, VersionNoteRow
from hetlora.messages.common import Identifier, Name, Page
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

router = operator_router()
ALIAS = "/populations/{name}/aliases/{alias}"


@router.get("/populations/{name}/aliases", responses=problems(404))
def list_aliases(
    name: Name, service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[AliasStatus]:
    with service.database.read() as session:
        check_population(session, name)
    of_population = AliasRow.population == name
    return page_of(service, AliasRow, AliasRow.alias, alias_status, of_population, cursor=cursor, limit=limit)


@router.get(ALIAS, responses=problems(404))
def get_alias_status(name: Name, alias: Name, service: ServiceOf) -> AliasStatus:
    with service.database.read() as session:
        return alias_status(session, get_alias(session, name, alias))


@router.post(f"{ALIAS}:set", responses=problems(404, 408, 409, 413))
def post_alias(
    name: Name,
    alias: Name,
    message: AliasSet,
    service: ServiceOf,
    operator: OperatorOf,
    asked: IdempotencyKeyOf,
) -> AliasChange:
    return set_alias(service, name, alias, message, operator, asked)


@router.post(f"{ALIAS}:remove", responses=problems(404, 408, 409, 413))
def post_alias_removal(
    name: Name,
    alias: Name,
    message: AliasRemoval,
    service: ServiceOf,
    operator: OperatorOf,
    asked: IdempotencyKeyOf,
) -> AliasChange:
    return remove_alias(service, name, alias, message, operator, asked)


@router.get(f"{ALIAS}/history", responses=problems(404))
def list_alias_changes(
    name: Name, alias: Name, service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[AliasChange]:
    """Where an alias pointed, newest first; also of one that was removed."""
    with service.database.read() as session:
        check_population(session, name)
    return page_of(
        service,
        AliasChangeRow,
        AliasChangeRow.id,
        alias_change,
        AliasChangeRow.population == name,
        AliasChangeRow.alias == alias,
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


@router.get("/adapters/{version}", responses=problems(404))
def get_adapter_details(version: Identifier, service: ServiceOf) -> AdapterDetails:
    lineage = registry_entry(service, version).lineage
    with service.database.read() as session:
        pointing = select(AliasRow.alias).where(AliasRow.version == version).order_by(AliasRow.alias)
        return AdapterDetails(
            status=adapter_version_status(session, get_version(session, version)),
            lineage=lineage,
            aliases=tuple(session.scalars(pointing)),
            notes=count_notes(session, version),
        )


@router.get("/adapters/{version}/manifest", responses=problems(404))
def get_signed_manifest(version: Identifier, service: ServiceOf) -> SignedManifest:
    return signed(service, registry_entry(service, version))


@router.get("/signing-keys")
def list_signing_keys(
    service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[SigningKey]:
    """The keys that signed manifests, their public halves."""
    return page_of(service, SigningKeyRow, SigningKeyRow.id, signing_key, cursor=cursor, limit=limit)


@router.post("/adapters/{version}/notes", status_code=201, responses=problems(404, 408, 409, 413))
def post_note(
    version: Identifier,
    message: NoteCreate,
    service: ServiceOf,
    operator: OperatorOf,
    asked: IdempotencyKeyOf,
) -> VersionNote:
    return add_note(service, version, message, operator, asked)


@router.get("/adapters/{version}/notes", responses=problems(404))
def list_notes(
    version: Identifier, service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[VersionNote]:
    with service.database.read() as session:
        get_version(session, version)
    of_version = VersionNoteRow.version == version
    return page_of(
        service, VersionNoteRow, VersionNoteRow.id, version_note, of_version, cursor=cursor, limit=limit
    )
