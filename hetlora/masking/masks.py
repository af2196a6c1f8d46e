"""Masks put on one vector and taken off a sum (Bonawitz et al. 2017, figure 4).

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)          modulo 2^64

over the others v who shared their secrets; s_uv is what u's and v's mask keys agree on, b_u is u's own seed.
Between two whose vectors are in, masks cancel. To take off are the own masks of those, and what they have in
common with those who dropped out, whose mask keys tell it.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from hetlora.errors import MalformedMessage
from hetlora.masking.keys import MaskSecrets, agreed_key, derived, public_key_of
from hetlora.masking.quantising import Masked
from hetlora.masking.shamir import joined
from hetlora.messages.masking import MaskMember, MaskReveal, RevealedShare

PIECE: Final = 2**17  # numbers of a mask that are in memory at a time
_ZEROS: Final = bytes(8 * PIECE)
# Each seed is used for one mask, so that a counter and nonce of zero are used once with its key.
_START: Final = bytes(16)
Sign = Literal[1, -1]


def masked(
    vector: Masked,
    secrets: MaskSecrets,
    position: int,
    members: Sequence[MaskMember],
    sharers: Collection[int],
) -> Masked:
    """A vector (n,) under the device's own mask and those that it has with each other sharer.

    Raises:
        MalformedMessage: a member's key is of small order.
    """
    result = vector.copy()
    _add(result, derived(secrets.seed, b"hetlora-own-mask"), 1)
    for member in members:
        if member.device in sharers and member.device != position:
            _add(result, _pair_seed(secrets.mask_key, member), _sign(position, member.device))
    return result


def unmask(
    total: Masked,
    members: Sequence[MaskMember],
    seeds: Mapping[int, bytes],
    mask_keys: Mapping[int, bytes],
) -> None:
    """Take what does not cancel off the sum of those whose seeds these are; mask keys are of the others.

    Args:
        total: the sum (n,) of masked vectors, changed in place.
        seeds: by position, of all whose vectors are in it.
        mask_keys: by position, of all who shared, and whose vectors are not in it.
    """
    for seed in seeds.values():
        _add(total, derived(seed, b"hetlora-own-mask"), -1)
    for gone, mask_key in mask_keys.items():
        for member in members:
            if member.device in seeds:
                _add(total, _pair_seed(mask_key, member), -_sign(member.device, gone))


def recovered(
    reveals: Mapping[int, MaskReveal], members: Sequence[MaskMember], threshold: int
) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Seeds and mask keys by position, of what devices, by position, revealed.

    Raises:
        MalformedMessage: too few revealed, not all of the same devices, or a share is wrong. A seed out of a
            wrong share cannot be told here; the sum is then noise, which `Quantiser.decode` refuses.
    """
    seeds = _secrets({by: own.seeds for by, own in reveals.items()}, threshold)
    mask_keys = _secrets({by: own.mask_keys for by, own in reveals.items()}, threshold)
    told = {member.device: member.mask_key for member in members}
    for device, mask_key in mask_keys.items():
        if public_key_of(mask_key) != told.get(device):
            raise MalformedMessage("shares of a mask key that is not the device's", got=f"of device {device}")
    return seeds, mask_keys


def _secrets(shares: Mapping[int, Sequence[RevealedShare]], threshold: int) -> dict[int, bytes]:
    by_device: dict[int, dict[int, bytes]] = {}
    for by, own in shares.items():
        for share in own:
            by_device.setdefault(share.device, {})[by] = b64decode(share.share)
    return {device: joined(own, threshold) for device, own in sorted(by_device.items())}


def _pair_seed(mask_key: bytes, member: MaskMember) -> bytes:
    return agreed_key(mask_key, member.mask_key, b"hetlora-pair-mask")


def _sign(own: int, other: int) -> Sign:
    return 1 if own < other else -1


def _add(into: Masked, seed: bytes, sign: int) -> None:
    """Add a seed's mask, or take it off; integers of numpy wrap as the ring does."""
    stream = Cipher(ChaCha20(seed, _START), mode=None).encryptor()
    for start in range(0, into.size, PIECE):
        piece = into[start : start + PIECE]
        mask = np.frombuffer(stream.update(_ZEROS[: 8 * piece.size]), "<u8")
        if sign > 0:
            piece += mask
        else:
            piece -= mask
