"""Messages of the registry: aliases and notes of adapter versions, and what a version came from."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from hetlora.digest import Sha256
from hetlora.messages.common import Count, Identifier, Integer, Message, Name, ObjectRef, Timestamp
from hetlora.messages.defence import Defence
from hetlora.messages.device import PublicKey
from hetlora.messages.management import AdapterVersionStatus
from hetlora.messages.privacy import PrivacySpent
from hetlora.messages.rules import RuleSettings
from hetlora.messages.server_optimizer import ServerOptimizer

MAX_NOTE_CHARACTERS: Final = 2000
Reason = Annotated[str, Field(min_length=1, max_length=1000)]


class AliasSet(Message):
    """Let an alias of a population point at one of its adapter versions, wherever it pointed before."""

    version: Identifier
    reason: Reason


class AliasRemoval(Message):
    """Take an alias away; its history stays."""

    reason: Reason


class AliasStatus(Message):
    """An alias as it stands: the version, and who last set it, and why."""

    population: Name
    alias: Name
    version: Identifier
    reason: str
    key_id: Identifier  # of the operator
    key_name: Name
    at: Timestamp


class AliasChange(Message):
    """One write of an alias; `old` is null where there was none, `new` where it was removed."""

    change_id: Count
    population: Name
    alias: Name
    old: Identifier | None
    new: Identifier | None
    reason: str
    key_id: Identifier
    key_name: Name
    at: Timestamp


class NoteCreate(Message):
    """Something to remember of an adapter version; it is neither changed nor removed afterwards."""

    text: str = Field(min_length=1, max_length=MAX_NOTE_CHARACTERS)


class VersionNote(Message):
    """A note, and who wrote it."""

    note_id: Count
    version: Identifier
    text: str
    key_id: Identifier
    key_name: Name
    at: Timestamp


class RankCount(Message):
    """How many of the merged updates were trained at a rank, and how many had it when they came back."""

    rank: Integer
    taken: Integer
    updated: Integer  # after self-pruning


class Lineage(Message):
    """What an adapter version came from; it says the same whenever it is asked for."""

    population: Name
    base_model: str
    base_sha256: Sha256  # over the base model's safetensors files
    bundle: Sha256
    run_id: Identifier
    seed: Count
    round_index: Integer  # -1 for the initial adapter, which no round made
    attempt: Integer | None
    made_from: Identifier | None  # the version that the round was aggregated on
    rule: RuleSettings
    server_optimizer: ServerOptimizer | None
    defence: Defence
    cohort_size: Integer  # devices that were asked
    update_count: Integer  # of them, merged
    ranks: tuple[RankCount, ...]  # of those, ascending
    privacy: PrivacySpent | None = None  # of a run with differential privacy


class AdapterDetails(Message):
    """All that the registry tells of one adapter version, but for its notes."""

    status: AdapterVersionStatus
    lineage: Lineage
    aliases: tuple[Name, ...]  # that point at it now
    notes: Integer  # how many there are


class SigningKey(Message):
    """A key that signed manifests of this service; `key_id` is what their signatures name."""

    key_id: Identifier  # SHA-256 of the 32 bytes of the public key
    public_key: PublicKey
    first_used_at: Timestamp


class RegistryEntry(Message):
    """What is signed of an adapter version: which bytes it is, and what they came from."""

    version: Identifier
    adapter: ObjectRef
    frozen: ObjectRef | None
    figures: dict[str, float]  # what rule and defence told of the round
    lineage: Lineage
    created_at: Timestamp
