"""What the number says that a command ends with; `HetloraError.exit_code` says which error has which."""

from __future__ import annotations

from typing import Final

EXIT_CODES: Final = {
    0: "done",
    1: "a fault of hetlora, or output that cannot be written",
    2: "wrong usage: no such command or option, or a value that it does not take",
    3: "input that cannot be used: a file, a folder, a setting",
    4: "refused by the service: no such key or role, nothing of that name, or not in this state",
    5: "unavailable now: service unreachable, port in use, part not installed",
    130: "ended by Ctrl-C",
    143: "ended by SIGTERM",
}


def exit_codes_in_words() -> str:
    """All of them, as `hetlora --help` ends with."""
    return "Exit codes: " + "; ".join(f"{code} {words}" for code, words in EXIT_CODES.items()) + "."
