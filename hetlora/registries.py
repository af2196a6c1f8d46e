"""Registries of models elsewhere, which plug-ins push an exported adapter version to.

A package adds one by an entry point of the group `hetlora.registries`, whose name is what
`hetlora adapter export --push NAME` takes and whose object is a `PushToRegistry`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, Protocol

from hetlora.errors import DependencyMissing, SettingsError
from hetlora.messages.registry import AdapterDetails

GROUP: Final = "hetlora.registries"


class PushToRegistry(Protocol):
    """Pushes what was exported, and answers where it is now, in the registry's own words.

    `folder` is what `hetlora adapter export` wrote, in whatever form, and `entry` what the service tells of
    the version. The same folder pushed again makes no second copy, where the registry can tell. Addresses and
    tokens are the registry's own affair: its environment variables, its configuration. Errors of any kind may
    be raised; a `HetloraError` is told as it is.
    """

    def __call__(self, folder: Path, entry: AdapterDetails) -> str: ...


def find_registry(name: str) -> PushToRegistry:
    """A plug-in by its name.

    Raises:
        SettingsError: there is none of the name, or several packages have one.
        DependencyMissing: it cannot be imported.
    """
    found = {(own.name, own.value): own for own in entry_points(group=GROUP)}
    named = [own for own in found.values() if own.name == name]
    if not named:
        there = ", ".join(sorted({own.name for own in found.values()}))
        raise SettingsError("no registry of this name is installed", got=name, expected=there or "a plug-in")
    if len(named) > 1:
        values = ", ".join(sorted(own.value for own in named))
        raise SettingsError("several plug-ins have this name", got=f"{name}: {values}", expected="one")
    return _loaded(named[0])


def _loaded(plugin: EntryPoint) -> PushToRegistry:
    try:
        push: PushToRegistry = plugin.load()
    except (ImportError, AttributeError) as error:
        raise DependencyMissing(
            f"the registry {plugin.name} cannot be loaded", got=error, expected=plugin.value
        ) from error
    return push
