"""The kinds of examples: what they take, and that a refusal never quotes them."""

from __future__ import annotations

import io
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.examples import (
    AnyExample,
    ChatExample,
    ChatTurn,
    Example,
    ExampleStore,
    ImageExample,
    TextExample,
)
from hetlora.errors import DataError

TURNS = (ChatTurn("user", "how are you"), ChatTurn("assistant", "rather well"))


def _png(width: int = 3, height: int = 2) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


def _noise() -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(0).randbytes(32 * 32 * 3)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        list(TURNS),
        [("user", "how are you"), ("assistant", "rather well")],
        [{"role": "user", "content": "how are you"}, {"role": "assistant", "content": "rather well"}],
    ],
)
def test_turns_are_taken_in_three_forms(given: Any) -> None:
    assert ChatExample.of(given).turns == TURNS


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3, 1), (2, 3)])
def test_pixels_are_taken_as_an_array(shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    example = ImageExample.of_pixels(pixels, "cat", "k", expires_at=7)
    assert (example.label, example.key, example.expires_at) == ("cat", "k", 7)
    assert example.shape == (2, 3, shape[2] if len(shape) == 3 else 1)
    assert example.image == pixels.tobytes()


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Example("secret", ""), "label of an example is empty"),
        (lambda: Example("secret", "x", key=b"secret"), "key of an example; got bytes"),  # type: ignore[arg-type]
        (lambda: Example("x", "x", key="secret \ud83d"), "key of an example; got str"),
        (lambda: Example("secret", "x", expires_at="secret"), "expires_at of an example; got str"),  # type: ignore[arg-type]
        (lambda: Example("secret", "x", expires_at=float("nan")), "expires_at of an example; got float"),
        (lambda: TextExample(" "), "text of an example is empty"),
        (lambda: ImageExample(b"secret", "x"), "no file that can be read; got 6 bytes"),
        (lambda: ImageExample("secret", "x"), "no file that can be read; got str"),  # type: ignore[arg-type]
        (lambda: ImageExample(b"secret", "x", shape=(2, 2, 3)), r"got 6 bytes of shape \(2, 2, 3\)"),
        (lambda: ImageExample(b"secret", "x", shape=(1, 3, 2)), r"got 6 bytes of shape \(1, 3, 2\)"),
        (lambda: ImageExample(b"", "x", shape=(0, 1, 1)), "got 0 bytes of shape"),
        (lambda: ImageExample.of_pixels(np.zeros((2, 2, 3)), "x"), "got float64 of 3 dimensions"),
        (lambda: ImageExample.of_pixels(np.zeros(4, np.uint8), "x"), "got uint8 of 1 dimensions"),
        (lambda: ChatExample([("user", "secret")]), "turns of a chat; got list"),  # type: ignore[arg-type]
        (lambda: ChatExample(()), "without a turn to learn; got 0 turns"),
        (lambda: ChatExample.of([("user", "secret")]), "without a turn to learn; got 1 turns"),
        (lambda: ChatExample.of([("secret", "secret")]), "role of a turn; got str"),
        (lambda: ChatExample.of([("user", " ")]), "content of a turn is empty"),
        (lambda: ChatExample.of(["secret"]), "a turn of a chat; got str"),
        (lambda: ChatExample.of([{"secret": 1}]), "a turn of a chat; got dict"),
    ],
)
def test_bad_input_is_told_by_its_kind_and_never_quoted(make: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        make()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "file", [_png()[:40], _noise()[:1000], b"\x89PNG\r\n\x1a\nsecret", b"\xff\xd8\xffsecret"]
)
def test_image_that_cannot_be_opened_is_refused_when_it_is_put(tmp_path: Path, file: bytes) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        with pytest.raises(DataError, match="image of an example cannot be read") as caught:
            store.put(ImageExample(file, "cat"))
        assert "secret" not in str(caught.value)
        assert store.count() == 0


def test_image_of_too_many_pixels_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    # Of one colour it is small as a file, and 100 MB when it is opened.
    with (
        ExampleStore(tmp_path / "examples.sqlite") as store,
        pytest.raises(DataError, match="too large; got 5793 x 5793; expected up to 33554432 pixels"),
    ):
        store.put(ImageExample(_png_header(5793, 5793), "cat"))


def _png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and holds nothing."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    small = _png(1, 1)
    header = b"IHDR" + size + small[24:29]
    return small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]


TEXTS = st.text(min_size=1).filter(str.strip)
KEEPING = {"key": st.none() | st.text(), "expires_at": st.none() | st.floats(1e9, 1e12)}
SAID = st.builds(ChatTurn, st.sampled_from(["system", "user", "assistant"]), TEXTS)
ANSWER = st.builds(ChatTurn, st.just("assistant"), TEXTS)
EXAMPLES = st.one_of(
    st.builds(Example, TEXTS, TEXTS, **KEEPING),
    st.builds(TextExample, TEXTS, **KEEPING),
    st.builds(
        lambda turns, answer, **keeping: ChatExample((*turns, answer), **keeping),
        st.lists(SAID),
        ANSWER,
        **KEEPING,
    ),
    st.builds(ImageExample, st.binary(min_size=12, max_size=12), TEXTS, shape=st.just((2, 2, 3)), **KEEPING),
    st.builds(ImageExample, st.just(_png()), TEXTS, **KEEPING),
)


@settings(max_examples=40, deadline=None)  # the machine may be busy
@given(examples=st.lists(EXAMPLES, max_size=8), key=st.none() | st.binary(min_size=32, max_size=32))
def test_what_is_read_back_is_what_was_put(
    tmp_path_factory: pytest.TempPathFactory, examples: list[AnyExample], key: bytes | None
) -> None:
    path = tmp_path_factory.mktemp("law") / "s"
    with ExampleStore(path, encryption_key=key, clock=lambda: 0.0) as store:
        store.put_many(examples)
    last = {example.key if example.key is not None else object(): example for example in examples}
    with ExampleStore(path, encryption_key=key, clock=lambda: 0.0) as store:
        assert list(store) == list(last.values())


def test_what_is_no_example_is_refused(tmp_path: Path) -> None:
    with (
        ExampleStore(tmp_path / "examples.sqlite") as store,
        pytest.raises(DataError, match="no example; got tuple"),
    ):
        store.put_many([("secret", "x")])  # type: ignore[list-item]


def test_example_of_its_own_takes_no_second_key(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        with pytest.raises(TypeError, match="its own label and key"):
            store.put(TextExample("text"), key="k")  # type: ignore[call-overload]
        assert store.count() == 0
