"""Examples to the bytes that are sealed in their rows, and back.

The content is what is learned from, the summary what stands beside it: a label and the app's key. They are
apart, so that labels are counted without reading images.
"""

from __future__ import annotations

import json
import struct

from edge_sdk.examples.kinds import (
    KIND_OF,
    AnyExample,
    ChatExample,
    ChatTurn,
    Example,
    ImageExample,
    Kind,
    TextExample,
)
from hetlora.errors import StoreDamaged

# Before pixels: no PNG or JPEG file begins with a zero.
_SHAPE = struct.Struct("<xIII")


def kind_of(example: AnyExample) -> Kind:
    """The kind of an example, as its row has it in clear."""
    return KIND_OF[type(example)]


def content_of(example: AnyExample) -> bytes:
    """What is learned from, without label and key."""
    match example:
        case Example() | TextExample():
            return example.text.encode()
        case ChatExample():
            turns = [[turn.role, turn.content] for turn in example.turns]
            return json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode()
        case ImageExample():
            return example.image if example.shape is None else _SHAPE.pack(*example.shape) + example.image


def summary_of(example: AnyExample) -> bytes:
    """Label, where there is one, and key, where there is one."""
    return json.dumps([getattr(example, "label", None), example.key], ensure_ascii=False).encode()


def label_and_key(summary: bytes) -> tuple[str | None, str | None]:
    """What `summary_of` wrote."""
    label, key = json.loads(summary)
    return label, key


def example_of(kind: str, content: bytes, summary: bytes, expires_at: float | None) -> AnyExample:
    """The example that was put.

    Raises:
        StoreDamaged: a kind that this version does not know.
    """
    label, key = label_and_key(summary)
    match kind:
        case "labelled_text":
            return Example(content.decode(), label or "", key, expires_at=expires_at)
        case "text":
            return TextExample(content.decode(), key, expires_at=expires_at)
        case "chat":
            turns = tuple(ChatTurn(role, said) for role, said in json.loads(content))
            return ChatExample(turns, key, expires_at=expires_at)
        case "image" if content[:1] == b"\0":
            height, width, channels = _SHAPE.unpack_from(content)
            shape, pixels = (height, width, channels), content[_SHAPE.size :]
            return ImageExample(pixels, label or "", key, expires_at=expires_at, shape=shape)
        case "image":
            return ImageExample(content, label or "", key, expires_at=expires_at)
    raise StoreDamaged("an example of a kind that is not known", got=kind)
