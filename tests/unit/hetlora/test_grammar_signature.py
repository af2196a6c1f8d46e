from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, MalformedMessage
from hetlora.signature import (
    SignatureParameters,
    content_digest,
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
