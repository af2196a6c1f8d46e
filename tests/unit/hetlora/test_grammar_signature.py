from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, MalformedMessage
from hetlora.signature import (
    PRIME,
    SMALL_ORDER,
    SignatureParameters,
    content_digest,
    is_of_small_order,
    parse_content_digest,
    parse_signature,
    signature_base,
    signature_header,
)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PARAMETERS = SignatureParameters(created=1763683200, nonce="abcdefghijklmnop", key_id="0123abcd")
INPUT = (
    'hetlora=("@method" "@path" "@query" "content-digest");created=1763683200'
    ';nonce="abcdefghijklmnop";keyid="0123abcd";alg="ed25519"'
)
SIGNATURE = f"hetlora=:{base64.b64encode(bytes(range(64))).decode()}:"


def test_content_digest_is_the_structured_field_of_rfc_9530() -> None:
    assert content_digest(EMPTY_SHA256) == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


@given(st.binary())
def test_content_digest_is_read_back(body: bytes) -> None:
    assert parse_content_digest(content_digest(sha256_of(body))) == sha256_of(body)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "sha-512=:AAAA:",
        "sha-256=:AAAA:",
        f"{content_digest(EMPTY_SHA256)}, {content_digest(EMPTY_SHA256)}",
    ],
    ids=["empty", "another algorithm", "too short", "two values"],
)
def test_content_digest_of_another_form_is_malformed(header: str) -> None:
    with pytest.raises(MalformedMessage, match="Content-Digest"):
        parse_content_digest(header)


def test_signature_base_is_that_of_rfc_9421() -> None:
    base = signature_base(
        PARAMETERS, method="post", path="/device/v1/check-ins", query="a=1&b=2", body_sha256=EMPTY_SHA256
    )
    assert base == (
        b'"@method": POST\n'
        b'"@path": /device/v1/check-ins\n'
        b'"@query": ?a=1&b=2\n'
        b'"content-digest": sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\n'
        b'"@signature-params": ("@method" "@path" "@query" "content-digest");created=1763683200'
        b';nonce="abcdefghijklmnop";keyid="0123abcd";alg="ed25519"'
    )


def test_absent_query_is_signed_as_a_question_mark() -> None:
    base = signature_base(PARAMETERS, method="GET", path="/", query="", body_sha256=EMPTY_SHA256)
    assert base.splitlines()[2] == b'"@query": ?'


@pytest.mark.parametrize("part", ["method", "path", "query"])
@pytest.mark.parametrize("break_", ["\n", "\r\n", "\u2028", "\x85", "\0", "\x7f", "é"], ids=ascii)
def test_line_breaks_and_bytes_that_no_request_line_holds_are_not_signed(part: str, break_: str) -> None:
    parts = {"method": "GET", "path": "/a", "query": "b=1"}
    parts[part] += break_ + '"@query": ?b=2'
    with pytest.raises(AuthenticationFailed, match="cannot be signed") as caught:
        signature_base(PARAMETERS, **parts, body_sha256=EMPTY_SHA256)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "parameters",
    [
        SignatureParameters(1, 'abcdefghijklmnop";keyid="victim', "me"),
        SignatureParameters(1, "abcdefghijklmnop\n", "me"),
        SignatureParameters(1, "short", "me"),
        SignatureParameters(1, "abcdefghijklmnop", 'me";alg="none'),
        SignatureParameters(1, "abcdefghijklmnop", ""),
        SignatureParameters(-1, "abcdefghijklmnop", "me"),
    ],
    ids=["quote in nonce", "newline in nonce", "short nonce", "quote in key id", "no key id", "before 1970"],
)
def test_parameters_that_no_reader_would_accept_are_not_signed(parameters: SignatureParameters) -> None:
    with pytest.raises(AuthenticationFailed, match="cannot be signed"):
        signature_base(parameters, method="GET", path="/", query="", body_sha256=EMPTY_SHA256)


PATHS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)


@given(st.tuples(PATHS, PATHS), st.tuples(PATHS, PATHS))
def test_two_requests_never_share_a_signature_base(one: tuple[str, str], other: tuple[str, str]) -> None:
    bases = [
        signature_base(PARAMETERS, method="GET", path=path, query=query, body_sha256=EMPTY_SHA256)
        for path, query in (one, other)
    ]
    assert (bases[0] == bases[1]) == (one == other)


def test_headers_are_read_back() -> None:
    assert PARAMETERS.header() == INPUT
    assert signature_header(bytes(range(64))) == SIGNATURE
    assert parse_signature(INPUT, SIGNATURE) == (PARAMETERS, bytes(range(64)))


@given(
    st.integers(0, 10**12 - 1),
    st.from_regex(r"[A-Za-z0-9_-]{16,64}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    st.binary(min_size=64, max_size=64),
)
def test_every_header_written_is_read_back(created: int, nonce: str, key_id: str, value: bytes) -> None:
    parameters = SignatureParameters(created, nonce, key_id)
    assert parse_signature(parameters.header(), signature_header(value)) == (parameters, value)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "hetlora",
        INPUT + " ",
        INPUT + "\n",
        " " + INPUT,
        INPUT + ", other=()",
        INPUT.replace("hetlora", "sig1"),
        INPUT.replace(' "@query"', ""),
        INPUT.replace('"@method" "@path"', '"@path" "@method"'),
        INPUT.replace("ed25519", "hmac-sha256"),
        INPUT.replace("1763683200", "-1"),
        INPUT.replace("1763683200", "01763683200"),
        INPUT.replace("1763683200", "1763683200.5"),
        INPUT.replace("1763683200", "١٧٦٣٦٨٣٢٠٠"),  # int() would read these
        INPUT.replace("1763683200", "9" * 13),
        INPUT.replace("abcdefghijklmnop", "abcdefghijklmno"),
        INPUT.replace("abcdefghijklmnop", "a" * 65),
        INPUT.replace("abcdefghijklmnop", "abcdefgh ijklmnop"),
        INPUT.replace("0123abcd", ""),
        INPUT.replace("0123abcd", "a" * 65),
        INPUT + ";expires=1",
    ],
)
def test_signature_input_of_another_form_is_refused(header: str) -> None:
    with pytest.raises(AuthenticationFailed, match=r"Signature-Input (malformed|absent)"):
        parse_signature(header, SIGNATURE)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "hetlora=::",
        SIGNATURE[:-1],
        SIGNATURE + "\n",
        SIGNATURE.replace("hetlora", "sig1"),
        f"hetlora=:{base64.b64encode(bytes(63)).decode()}:",
        f"hetlora=:{base64.b64encode(bytes(65)).decode()}:",
        f"hetlora=:{'=' * 88}:",
        f"hetlora=:{'-' * 86}==:",
        "hetlora=:" + "A" * 100_000 + ":",
    ],
)
def test_signature_of_another_form_is_refused(header: str) -> None:
    with pytest.raises(AuthenticationFailed, match=r"Signature (malformed|absent)"):
        parse_signature(INPUT, header)


def test_absent_headers_are_refused_by_name() -> None:
    with pytest.raises(AuthenticationFailed, match="got Signature-Input absent"):
        parse_signature(None, SIGNATURE)
    with pytest.raises(AuthenticationFailed, match="got Signature absent"):
        parse_signature(INPUT, None)


D = -121665 * pow(121666, -1, PRIME) % PRIME  # Ed25519: -x^2 + y^2 = 1 + D x^2 y^2
SIGN = 2**255  # the highest bit of an encoding is the sign of x


def doubled(y: int) -> int:
    """The y of a point added to itself, which the sign of x has no part in."""
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, PRIME)
    return (y * y + x_squared) * pow(2 - y * y + x_squared, -1, PRIME) % PRIME


def test_points_of_small_order_are_the_eight_whose_eightfold_is_neutral() -> None:
    assert all(doubled(doubled(doubled(y))) == 1 for y in SMALL_ORDER)
    # x is 0 where y is 1 or -1; the other three y have two points each, which makes 1 + 1 + 3 * 2 = 8.
    assert len(SMALL_ORDER) == 5
    assert {1, PRIME - 1} < SMALL_ORDER


def test_every_encoding_of_a_point_of_small_order_is_known() -> None:
    # A y below 19 fits into 255 bits with the prime added, too: 5 + 2 of them, each with either sign.
    encodings = {y + extra for y in SMALL_ORDER for extra in (0, PRIME) if y + extra < SIGN}
    assert len(encodings) == 7
    assert all(is_of_small_order((y | sign).to_bytes(32, "little")) for y in encodings for sign in (0, SIGN))


def test_key_of_small_order_accepts_what_nobody_signed() -> None:
    """Why such keys are refused: the neutral element and S = 0 sign everything."""
    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"whatever")


@given(st.binary(min_size=32, max_size=32))
def test_key_of_a_device_is_of_large_order(seed: bytes) -> None:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert not is_of_small_order(public)
