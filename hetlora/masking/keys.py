"""A device's secrets in one round, and shares of them that only the device they are for can open.

X25519 (RFC 7748) agrees on a key for each pair, HKDF-SHA256 (RFC 5869) parts it by use, ChaCha20-Poly1305
(RFC 8439) seals. Keys are made for one assignment and never used for another.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hetlora.errors import MalformedMessage
from hetlora.masking.shamir import SECRET_BYTES, SHARE_BYTES, split
from hetlora.messages.masking import MaskKeys, MaskMember, MaskReveal, RevealedShare, SealedShares

NONCE_BYTES: Final = 12
FIELD: Final = 2**255 - 19  # of X25519: public keys are below it


@dataclass(frozen=True, slots=True)
class MaskSecrets:
    """Two private X25519 keys, and the seed of the device's own mask; 32 bytes each."""

    mask_key: bytes = field(repr=False)  # nor in a log or a traceback
    share_key: bytes = field(repr=False)
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """New ones."""
        return cls(os.urandom(SECRET_BYTES), os.urandom(SECRET_BYTES), os.urandom(SECRET_BYTES))

    @property
    def public(self) -> MaskKeys:
        """What others may know."""
        return MaskKeys(mask_key=public_key_of(self.mask_key), share_key=public_key_of(self.share_key))

    def to_bytes(self) -> bytes:
        """All three, one after the other."""
        return self.mask_key + self.share_key + self.seed

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` made."""
        first, second, third = (
            data[at : at + SECRET_BYTES] for at in range(0, 3 * SECRET_BYTES, SECRET_BYTES)
        )
        return cls(first, second, third)


@dataclass(frozen=True, slots=True)
class OpenedShares:
    """Shares of one device's mask key and of its seed, 33 bytes each."""

    mask_key: bytes = field(repr=False)
    seed: bytes = field(repr=False)


def public_key_of(private_key: bytes) -> str:
    """The public half of an X25519 key, in base64."""
    return b64encode(
        X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
    ).decode()


def agreed_key(private_key: bytes, public_key: str, use: bytes) -> bytes:
    """32 bytes that this pair of keys has in common for a use.

    Raises:
        MalformedMessage: the public key is of small order: anybody would know what it agrees on.
    """
    own, other = X25519PrivateKey.from_private_bytes(private_key), b64decode(public_key)
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise MalformedMessage("a key of small order", got=public_key, expected="an X25519 key") from error
    both = sorted((own.public_key().public_bytes_raw(), other))
    return derived(shared, use + both[0] + both[1])


def derived(secret: bytes, use: bytes) -> bytes:
    """32 bytes for one use of a secret."""
    return HKDF(SHA256(), 32, salt=None, info=use).derive(secret)


def check_keys(keys: MaskKeys) -> None:
    """Raise MalformedMessage unless others can agree with both keys, which are two, each in its one form.

    Of another form than its private key makes, it could not be told from a wrong one once that is recovered.
    """
    for key in (keys.mask_key, keys.share_key):
        number = int.from_bytes(b64decode(key), "little")
        if number >= FIELD or b64encode(b64decode(key)).decode() != key:
            raise MalformedMessage("a key in another form than X25519 makes it", got=key, expected="its own")
        agreed_key(os.urandom(SECRET_BYTES), key, b"")
    if keys.mask_key == keys.share_key:
        raise MalformedMessage(
            "one key for both uses", got=keys.mask_key, expected="one to mask, one to share"
        )


def sealed_shares(
    secrets: MaskSecrets, position: int, members: Sequence[MaskMember], threshold: int
) -> tuple[SealedShares, ...]:
    """Shares of both secrets for each member, this device among them; drawn anew on each call.

    Raises:
        MalformedMessage: a member's key is of small order.
    """
    shares = zip(
        *(split(own, threshold, len(members)) for own in (secrets.mask_key, secrets.seed)), strict=True
    )
    sealed = []
    for member, (of_key, of_seed) in zip(sorted(members, key=_position), shares, strict=True):
        nonce, about = os.urandom(NONCE_BYTES), _about(position, member.device)
        box = nonce + _box(secrets, member).encrypt(nonce, of_key + of_seed, about)
        sealed.append(SealedShares(device=member.device, sealed=b64encode(box).decode()))
    return tuple(sealed)


def opened_shares(
    secrets: MaskSecrets, position: int, members: Sequence[MaskMember], sealed: Sequence[SealedShares]
) -> dict[int, OpenedShares]:
    """What others, by position, sealed for this device.

    Raises:
        MalformedMessage: one does not open: it was made for another device, or changed on its way.
    """
    of = {member.device: member for member in members}
    opened = {}
    for own in sealed:
        box = b64decode(own.sealed)
        try:
            key = _box(secrets, of[own.device])
            both = key.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], _about(own.device, position))
        except (InvalidTag, KeyError) as error:
            raise MalformedMessage("sealed shares that do not open", got=f"those of {own.device}") from error
        opened[own.device] = OpenedShares(both[:SHARE_BYTES], both[SHARE_BYTES:])
    return opened


def revealed(
    opened: Mapping[int, OpenedShares], sharers: Collection[int], reported: Collection[int]
) -> MaskReveal:
    """Of each sharer one share: of its seed if its update is in, of its mask key if not; never of both."""
    seeds = [_told(own, opened[own].seed) for own in sorted(sharers) if own in reported]
    mask_keys = [_told(own, opened[own].mask_key) for own in sorted(sharers) if own not in reported]
    return MaskReveal(seeds=tuple(seeds), mask_keys=tuple(mask_keys))


def _told(device: int, share: bytes) -> RevealedShare:
    return RevealedShare(device=device, share=b64encode(share).decode())


def _box(secrets: MaskSecrets, member: MaskMember) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(agreed_key(secrets.share_key, member.share_key, b"hetlora-share"))


def _about(sender: int, recipient: int) -> bytes:
    return f"{sender}:{recipient}".encode()


def _position(member: MaskMember) -> int:
    return member.device
