"""Options of commands that open a device's example stores."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated

import typer

from hetlora.errors import SettingsError
from hetlora.private_files import check_private

ExamplesKeyFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="HETLORA_EXAMPLES_KEY_FILE",
        help="File with 32 random bytes in base64 (`openssl rand -base64 32`), closed to other users: "
        "examples are encrypted under them from now on. Whoever loses them loses the examples.",
    ),
]


def read_key(path: Path | None) -> bytes | None:
    """The key of a file; None without one.

    Raises:
        SettingsError: the file cannot be read, is open to other users, or holds no key.
    """
    if path is None:
        return None
    try:
        check_private(path, f"key file {path}")
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"key file {path} cannot be read", got=error.strerror) from error
    try:
        return base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise SettingsError(f"{path} holds no key", expected="32 random bytes in base64") from error
