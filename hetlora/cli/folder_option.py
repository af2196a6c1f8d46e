"""`--folder`: where a device lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetlora.errors import SettingsError


def folder_of(text: str) -> Path:
    """The folder that an option names; it need not be there yet.

    Raises:
        SettingsError: no name, as of a variable that is not set, or the name of a file.
    """
    if not text:
        raise SettingsError("name of a folder", got="an empty one", expected="`.` for the one you are in")
    folder = Path(text)
    if folder.is_file():
        raise SettingsError(f"{folder} is no device folder", got="a file", expected="a folder")
    return folder


FolderOption = Annotated[
    Path,
    typer.Option(
        parser=folder_of, metavar="<path>", help="The device folder, as `hetlora device run` has it."
    ),
]
