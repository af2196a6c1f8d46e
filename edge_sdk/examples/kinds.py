"""The kinds of examples: a labelled text, a labelled image, a chat, and plain text.

Whatever is wrong with one is told by what it is and never by what it says: errors go to logs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from hetlora.errors import DataError

Kind = Literal["labelled_text", "image", "chat", "text"]
Role = Literal["system", "user", "assistant"]
LEARNED_ROLE: Final[Role] = "assistant"

# How the files begin that images come in.
_IMAGE_FILES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_CHANNELS: Final = (1, 3)


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its label: the class it belongs to or, where text is generated, what follows on it.

    `key` is the app's own name for an example, if it wants to replace or delete it; `expires_at`, in Unix
    seconds, is when it is to be removed. All kinds have both.
    """

    text: str
    label: str
    key: str | None = None
    expires_at: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_text("text of an example", self.text)
        _check_text("label of an example", self.label)
        _check_keeping(self.key, self.expires_at)


@dataclass(frozen=True, slots=True)
class ImageExample:
    """An image and the class it belongs to: a whole PNG or JPEG file, or pixels as `of_pixels` takes them.

    `shape` is (height, width, channels) where `image` holds pixels, row by row, one byte for each channel.
    """

    image: bytes
    label: str
    key: str | None = None
    expires_at: float | None = field(default=None, kw_only=True)
    shape: tuple[int, int, int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.shape is not None:
            _check_pixels(self.image, self.shape)
        elif not isinstance(self.image, bytes) or not self.image.startswith(_IMAGE_FILES):
            raise DataError(
                "image of an example is no file that can be read",
                got=_size_or_type(self.image),
                expected="the bytes of a PNG or JPEG file",
            )
        _check_text("label of an example", self.label)
        _check_keeping(self.key, self.expires_at)

    @classmethod
    def of_pixels(
        cls, pixels: NDArray[Any], label: str, key: str | None = None, *, expires_at: float | None = None
    ) -> Self:
        """An example of pixels (height, width, channels) or (height, width) uint8, with 1 or 3 channels.

        Raises:
            DataError: an array of another shape or dtype, or a label that is none.
        """
        array = np.asarray(pixels)
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise DataError(
                "pixels of an example",
                got=f"{array.dtype} of {array.ndim} dimensions",
                expected="uint8 (height, width, channels)",
            )
        height, width, channels = (*array.shape, 1)[:3]
        return cls(array.tobytes(), label, key, expires_at=expires_at, shape=(height, width, channels))


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """What one side of a chat said; a model learns what the role "assistant" said."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise DataError("role of a turn", got=type(self.role).__name__, expected=list(get_args(Role)))
        _check_text("content of a turn", self.content)


@dataclass(frozen=True, slots=True)
class ChatExample:
    """The turns of a chat, oldest first; each of the role "assistant" is learned, and there is one at least.

    `of` takes turns as apps have them.
    """

    turns: tuple[ChatTurn, ...]
    key: str | None = None
    expires_at: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.turns, tuple) or not all(isinstance(turn, ChatTurn) for turn in self.turns):
            raise DataError(
                "turns of a chat",
                got=type(self.turns).__name__,
                expected="a tuple of ChatTurn; see ChatExample.of",
            )
        if all(turn.role != LEARNED_ROLE for turn in self.turns):
            raise DataError(
                "a chat without a turn to learn",
                got=f"{len(self.turns)} turns",
                expected=f"one by {LEARNED_ROLE}",
            )
        _check_keeping(self.key, self.expires_at)

    @classmethod
    def of(cls, turns: Iterable[AnyTurn], key: str | None = None, *, expires_at: float | None = None) -> Self:
        """An example of turns that are {"role": ..., "content": ...}, (role, content), or `ChatTurn`.

        Raises:
            DataError: something that is no turn, or no turn to learn.
        """
        return cls(as_turns(turns), key, expires_at=expires_at)


@dataclass(frozen=True, slots=True)
class TextExample:
    """Plain text, which a language model learns from its first token to its last."""

    text: str
    key: str | None = None
    expires_at: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_text("text of an example", self.text)
        _check_keeping(self.key, self.expires_at)


AnyTurn = ChatTurn | Mapping[str, str] | tuple[str, str]
AnyExample = Example | ImageExample | ChatExample | TextExample

KIND_OF: Final[Mapping[type[AnyExample], Kind]] = {
    Example: "labelled_text",
    ImageExample: "image",
    ChatExample: "chat",
    TextExample: "text",
}


def as_turns(turns: Iterable[AnyTurn]) -> tuple[ChatTurn, ...]:
    """Turns in any of the forms that `ChatExample.of` takes.

    Raises:
        DataError: something that is no turn.
    """
    return tuple(_as_turn(turn) for turn in turns)


def _as_turn(turn: Any) -> ChatTurn:
    match turn:
        case ChatTurn():
            return turn
        case {"role": role, "content": content} | (role, content):
            return ChatTurn(role, content)
    raise DataError("a turn of a chat", got=type(turn).__name__, expected="a role and a content")


def _check_text(what: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
        raise DataError(
            f"{what} is empty or no text",
            got=type(value).__name__,
            expected="a Unicode string with something in it",
        )


def _check_keeping(key: object, expires_at: Any) -> None:
    if key is not None and not (isinstance(key, str) and _is_unicode(key)):
        raise DataError("key of an example", got=type(key).__name__, expected="a Unicode string, or None")
    is_moment = isinstance(expires_at, int | float) and not isinstance(expires_at, bool)
    if expires_at is not None and not (is_moment and math.isfinite(expires_at)):
        raise DataError(
            "expires_at of an example", got=type(expires_at).__name__, expected="Unix seconds, or None"
        )


def _check_pixels(pixels: object, shape: tuple[int, int, int]) -> None:
    if not isinstance(pixels, bytes) or shape[2] not in _CHANNELS or not 0 < math.prod(shape) == len(pixels):
        raise DataError(
            "pixels of an example",
            got=f"{_size_or_type(pixels)} of shape {shape}",
            expected=f"a byte for each place of (height, width, channels), channels one of {_CHANNELS}",
        )


def _size_or_type(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__


def _is_unicode(value: str) -> bool:
    # Lone surrogates live in Python strings, yet neither SQLite nor the tokenizer takes them.
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
