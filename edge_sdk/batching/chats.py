"""Chats as the text that a model was made to read, and which of it is to be learned.

A bundle's tokenizer tells which way of writing turns its model knows: that whose marks are tokens of their
own. One that knows none of them is given plain lines, which any model can be taught.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_sdk.examples.kinds import LEARNED_ROLE, ChatTurn


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What stands before a turn, with its role in it, and after; `end` is learned with what was said.

    `assistant` is what the role is called here. Where there is no system role (`has_system`), what the system
    said stands before what the user says next. `marks` are tokens of their own where a model knows this.
    """

    begin: str
    end: str
    after: str = ""
    assistant: str = LEARNED_ROLE
    has_system: bool = True
    marks: tuple[str, ...] = ()


FORMATS: Final = (
    # ChatML: Qwen, SmolLM and many others.
    ChatFormat("<|im_start|>{role}\n", "<|im_end|>", "\n", marks=("<|im_start|>", "<|im_end|>")),
    # Llama 3.
    ChatFormat(
        "<|start_header_id|>{role}<|end_header_id|>\n\n",
        "<|eot_id|>",
        marks=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    # Gemma.
    ChatFormat(
        "<start_of_turn>{role}\n",
        "<end_of_turn>",
        "\n",
        assistant="model",
        has_system=False,
        marks=("<start_of_turn>", "<end_of_turn>"),
    ),
    # Phi-3.
    ChatFormat("<|{role}|>\n", "<|end|>", "\n", marks=("<|user|>", "<|assistant|>", "<|end|>")),
)
PLAIN: Final = ChatFormat("{role}:\n", "\n")


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """The text of a chat, and where in it, from and to which character, a model is to learn."""

    text: str
    learned: tuple[tuple[int, int], ...]

    def is_learned(self, begin: int, end: int) -> bool:
        """Whether a token of these characters is: some hold the white space before them, too."""
        return any(begin < last and end > first for first, last in self.learned)


def chat_format(is_token: Callable[[str], bool]) -> ChatFormat:
    """The format of a tokenizer that tells what is a token of its own."""
    return next((known for known in FORMATS if all(map(is_token, known.marks))), PLAIN)


def rendered(turns: Sequence[ChatTurn], form: ChatFormat) -> RenderedChat:
    """A chat up to the last turn that is learned, the one after which nothing is."""
    last = max((place for place, turn in enumerate(turns) if turn.role == LEARNED_ROLE), default=-1)
    text, learned = "", []
    for turn in _as_the_format_has_them(turns[: last + 1], form):
        text += _begin(turn.role, form)
        begin = len(text)
        text += turn.content.strip() + form.end
        if turn.role == LEARNED_ROLE:
            learned.append((begin, len(text)))
        text += form.after
    return RenderedChat(text[: learned[-1][1]] if learned else text, tuple(learned))


def prompt_of(turns: Sequence[ChatTurn], form: ChatFormat) -> str:
    """A chat up to where the model is to speak."""
    said = "".join(
        _begin(turn.role, form) + turn.content.strip() + form.end + form.after
        for turn in _as_the_format_has_them(turns, form)
    )
    return said + _begin(LEARNED_ROLE, form)


def _begin(role: str, form: ChatFormat) -> str:
    return form.begin.format(role=form.assistant if role == LEARNED_ROLE else role)


def _as_the_format_has_them(turns: Sequence[ChatTurn], form: ChatFormat) -> list[ChatTurn]:
    if form.has_system:
        return list(turns)
    found, waiting = [], ""
    for turn in turns:
        if turn.role == "system":
            waiting += turn.content.strip() + "\n\n"
        elif turn.role == "user":
            found.append(ChatTurn("user", waiting + turn.content))
            waiting = ""
        else:
            found.append(turn)
    return found
