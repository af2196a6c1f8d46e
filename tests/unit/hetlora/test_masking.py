"""Secure aggregation's arithmetic: masked sums are plain sums, and less than the threshold tells nothing."""

from __future__ import annotations

from base64 import b64decode, b64encode

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.errors import MalformedMessage, MalformedTensors, NonFiniteValues, SpecMismatch
from hetlora.masking.keys import MaskSecrets, OpenedShares, check_keys, opened_shares
from hetlora.masking.masks import recovered, unmask
from hetlora.masking.quantising import Masked, Quantiser
from hetlora.masking.shamir import PRIME, joined, split
from hetlora.masking.vector import joint_vector, mean_of, size_of, weight_of
from hetlora.masking.wire import masked_to_bytes, max_masked_bytes, read_masked
from hetlora.messages.masking import MaskKeys, SealedShares
from hetlora.testing.masked_cohort import MaskedCohort, unmasked

SPEC = AdapterSpec((ModuleSpec("k", 3, 4), ModuleSpec("q", 5, 4)), 2.0, 3)


@st.composite
def fates(draw: st.DrawFn) -> tuple[int, int, list[int], list[int]]:
    """Count and threshold; who shared, and whose vectors are in: the threshold at least."""
    count = draw(st.integers(3, 9))
    threshold = 2 * count // 3 + 1
    order = draw(st.permutations(range(count)))
    sharers = draw(st.integers(threshold, count))
    reported = draw(st.integers(threshold, sharers))
    return count, threshold, sorted(order[:sharers]), sorted(order[:reported])


@given(fates())
@settings(max_examples=30, deadline=None)
def test_sum_of_masked_vectors_is_the_plain_sum_of_those_that_are_in(
    fate: tuple[int, int, list[int], list[int]],
) -> None:
    count, threshold, sharers, reported = fate
    cohort = MaskedCohort.of(count, threshold)
    vectors = np.random.default_rng(count).integers(0, 2**64, (count, 11), np.uint64)
    total = np.zeros(11, np.uint64)
    for own in reported:
        total += cohort.masked(own, vectors[own], sharers)

    # The last of them reveal: any that are as many as the threshold will do.
    reveals = {own: cohort.reveal(own, sharers, reported) for own in reported[-threshold:]}

    plain = vectors[reported].sum(axis=0, dtype=np.uint64)
    assert (unmasked(cohort, total, reveals) == plain).all()
    assert not (total == plain).any()


def test_fewer_reveals_than_the_threshold_recover_nothing() -> None:
    cohort = MaskedCohort.of(5, 4)
    reveals = {own: cohort.reveal(own, range(5), range(5)) for own in range(3)}

    with pytest.raises(MalformedMessage) as refused:
        recovered(reveals, cohort.members, cohort.threshold)

    assert (refused.value.got, refused.value.expected) == ("3", "4 or more")


def test_of_no_device_both_secrets_are_revealed() -> None:
    told = MaskedCohort.of(5, 4).reveal(0, range(5), [0, 1, 2, 4])

    assert [own.device for own in told.seeds] == [0, 1, 2, 4]
    assert [own.device for own in told.mask_keys] == [3]


def test_vector_that_comes_after_its_mask_key_was_revealed_stays_under_its_own_mask() -> None:
    cohort, zeros = MaskedCohort.of(4, 3), np.zeros(4096, np.uint64)
    reveals = {own: cohort.reveal(own, range(4), [0, 1, 2]) for own in range(3)}
    seeds, mask_keys = recovered(reveals, cohort.members, 3)
    late = cohort.masked(3, zeros, range(4))

    # All that the service can take off: what it has in common with the others.
    between = np.zeros(4096, np.uint64)
    unmask(between, cohort.members, dict.fromkeys(seeds, bytes(32)), mask_keys)
    own_seeds = np.zeros(4096, np.uint64)
    unmask(own_seeds, [], dict.fromkeys(seeds, bytes(32)), {})
    bare = late - (between - own_seeds)

    np.testing.assert_array_equal(bare, cohort.masked(3, zeros, [3]))  # under its own mask alone
    assert looks_uniform(bare)


def looks_uniform(numbers: Masked) -> bool:
    """Whether bits are set half of the time, within five deviations of a fair coin."""
    bits = np.unpackbits(numbers.view(np.uint8))
    return bool(abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size))


def test_masked_vector_looks_like_noise_and_another_one_in_each_round() -> None:
    zeros = np.zeros(4096, np.uint64)
    one, other = (MaskedCohort.of(3, 3).masked(0, zeros, range(3)) for _ in range(2))

    assert looks_uniform(one)
    assert looks_uniform(one ^ other)


def test_wrong_share_of_a_mask_key_is_told() -> None:
    cohort = MaskedCohort.of(4, 3)
    reveals = {own: cohort.reveal(own, range(4), [0, 1, 2]) for own in range(3)}
    reveals[1] = reveals[1].model_copy(update={"mask_keys": reveals[0].mask_keys})

    with pytest.raises(MalformedMessage):
        recovered(reveals, cohort.members, 3)


def test_wrong_share_of_a_seed_leaves_noise_that_no_sum_can_be() -> None:
    cohort, quantiser = MaskedCohort.of(3, 3), Quantiser(1.0, 3)
    total = np.zeros(64, np.uint64)
    for own in range(3):
        total += cohort.masked(own, quantiser.encode(np.ones(64)), range(3))
    reveals = {own: cohort.reveal(own, range(3), range(3)) for own in range(3)}
    assert quantiser.decode(unmasked(cohort, total, reveals)).tolist() == [3.0] * 64

    reveals[0] = reveals[0].model_copy(update={"seeds": reveals[1].seeds})
    with pytest.raises((NonFiniteValues, MalformedMessage)):
        quantiser.decode(unmasked(cohort, total, reveals))


def test_shares_open_for_the_device_they_were_sealed_for_alone() -> None:
    cohort = MaskedCohort.of(3, 3)
    of_another = [SealedShares(device=0, sealed=cohort.sealed[0][2].sealed)]

    with pytest.raises(MalformedMessage, match="do not open"):
        opened_shares(cohort.secrets[1], 1, cohort.members, of_another)
    with pytest.raises(MalformedMessage, match="do not open"):  # of somebody who is not among them
        opened_shares(
            cohort.secrets[1], 1, cohort.members, [SealedShares(device=9, sealed=of_another[0].sealed)]
        )


def test_key_that_anybody_can_agree_with_is_refused() -> None:
    good = MaskSecrets.generate().public
    check_keys(good)

    with pytest.raises(MalformedMessage, match="small order"):
        check_keys(MaskKeys(mask_key=good.mask_key, share_key="A" * 43 + "="))


def test_key_in_another_form_than_its_private_key_makes_is_refused() -> None:
    good = MaskSecrets.generate().public
    raw = b64decode(good.mask_key)
    high_bit = b64encode(raw[:31] + bytes([raw[31] | 0x80])).decode()  # X25519 does not look at it
    low_bits = good.mask_key[:42] + chr(ord(good.mask_key[42]) + 1) + "="  # base64 does not look at them

    for other in (high_bit, low_bits):
        with pytest.raises(MalformedMessage, match="another form"):
            check_keys(good.model_copy(update={"mask_key": other}))


def test_secrets_come_back_from_their_bytes() -> None:
    secrets = MaskSecrets.generate()

    assert MaskSecrets.from_bytes(secrets.to_bytes()) == secrets


def test_secrets_are_not_in_what_is_printed_of_them() -> None:
    assert repr(MaskSecrets.generate()) == "MaskSecrets()"
    assert repr(OpenedShares(bytes(33), bytes(33))) == "OpenedShares()"


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.integers(0, 3), st.randoms())
@settings(max_examples=50)
def test_any_shares_as_many_as_the_threshold_give_the_secret(
    secret: bytes, threshold: int, more: int, random: object
) -> None:
    shares = dict(enumerate(split(secret, threshold, threshold + more)))
    some = dict(random.sample(sorted(shares.items()), threshold))  # type: ignore[attr-defined]

    assert joined(some, threshold) == secret


def test_one_share_less_than_the_threshold_fits_every_secret() -> None:
    """Through the shares at 1 and 2, and any value at 0, there is a polynomial of degree 2."""
    shares = split(bytes(32), 3, 3)
    values = [int.from_bytes(own) for own in shares[:2]]

    for secret in (0, 1, 2**256 - 1):
        # Lagrange at x = 3 through (0, secret), (1, y1), (2, y2): secret - 3 y1 + 3 y2.
        third = (secret - 3 * values[0] + 3 * values[1]) % PRIME
        found = joined({0: shares[0], 1: shares[1], 2: third.to_bytes(33)}, 3)
        assert int.from_bytes(found) == secret


@given(st.integers(1, 256), st.sampled_from([1e-3, 1.0, 2.0**20, 1e9]))
def test_a_full_cohort_at_the_limit_does_not_wrap(count: int, largest: float) -> None:
    quantiser = Quantiser(largest, count)
    one = quantiser.encode(np.array([largest, -largest]))

    total = one * np.full(2, count, np.uint64)

    assert quantiser.decode(total).tolist() == pytest.approx([count * largest, -count * largest], rel=1e-12)
    assert 2**61 <= count * largest * 2.0**quantiser.fraction_bits * 2 <= 2**63


def test_vector_beyond_the_limit_weighs_less_and_keeps_its_mean() -> None:
    quantiser = Quantiser(8.0, 2)

    found = quantiser.decode(quantiser.encode(np.array([32.0, -16.0, 4.0])))

    assert found.tolist() == [8.0, -4.0, 1.0]


@given(st.integers(1, 256), st.floats(1e-3, 1e9), st.floats(1.0, 1e9))
@example(123, 3804.812463600433, 1811.2)
def test_cohort_of_which_each_is_scaled_down_to_the_limit_decodes(
    count: int, largest: float, beyond: float
) -> None:
    """What scaling leaves rounds to either side of the limit: no honest cohort may look like a lie for it."""
    quantiser = Quantiser(largest, count)
    one = quantiser.encode(np.array([largest * beyond, -largest * beyond]))

    found = quantiser.decode(one * np.full(2, count, np.uint64))

    assert found.tolist() == pytest.approx([count * largest, -count * largest], rel=1e-9)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_number_that_is_not_finite_is_not_masked(number: float) -> None:
    with pytest.raises(NonFiniteValues):
        Quantiser(1.0, 3).encode(np.array([0.0, number]))


def test_vector_has_factors_padded_to_the_rank_of_the_run() -> None:
    spec = AdapterSpec((ModuleSpec("q", 2, 3),), 1.0, 2)
    adapter = Adapter(spec, {"q": LoraFactors(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0], [5.0]]))})

    vector = joint_vector(adapter, 2, 10.0)

    assert vector.tolist() == [10, 20, 0, 0, 30, 0, 40, 0, 50, 0, 10]
    assert vector.size == size_of(spec, 2)
    # ||b a|| = ||b|| ||a|| = sqrt(50) sqrt(5)
    assert weight_of("norm", adapter, 7) == pytest.approx(250**0.5)
    assert (weight_of("examples", adapter, 7), weight_of("uniform", adapter, 7)) == (7.0, 1.0)


def test_mean_is_the_sum_over_the_weights_and_there_is_none_without_weight() -> None:
    wide, narrow = (initial_adapter(SPEC, rank, np.random.default_rng(rank)) for rank in (3, 1))

    mean = mean_of(joint_vector(wide, 3, 3.0) + joint_vector(narrow, 3, 1.0), SPEC, 3)

    assert mean is not None
    for module, own in mean:
        want = 0.75 * wide.factors[module.name].lora_A
        want[:1] += 0.25 * narrow.factors[module.name].lora_A
        np.testing.assert_allclose(own.lora_A, want, rtol=1e-6)
    assert mean_of(np.zeros(size_of(SPEC, 3)), SPEC, 3) is None


def test_masked_vector_comes_back_from_its_file() -> None:
    vector = np.array([0, 1, 2**64 - 1], np.uint64)
    data = masked_to_bytes(vector)

    assert read_masked(data, 3).tolist() == vector.tolist()
    assert len(data) <= max_masked_bytes(3)
    with pytest.raises(SpecMismatch):
        read_masked(data, 4)
    with pytest.raises(MalformedTensors):
        read_masked(data[:-1], 3)
    with pytest.raises(MalformedTensors):
        read_masked((2**40).to_bytes(8, "little") + data[8:], 3)
