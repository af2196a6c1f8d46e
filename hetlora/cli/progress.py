"""How far long work has come: on a terminal's standard error; silent with `--json`, in a pipe or a log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from hetlora.cli.output import plain, stderr

Item = TypeVar("Item")

# A line that changes for each of many items would only slow them down.
EVERY_ITEMS: Final = 100


class BytesColumn(DownloadColumn):
    """Bytes, once some went over the line."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.completed else Text()


class Work:
    """Work under way; says what it is at."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._words = str(progress.tasks[task].description)

    def at(self, words: str) -> None:
        """What is done now."""
        self._progress.update(self._task, description=plain(words).plain, completed=0, total=None)

    def moved(self, done_bytes: int, total_bytes: int | None) -> None:
        """How many bytes went over the line, and how many will, where that is known."""
        self._progress.update(self._task, completed=done_bytes, total=total_bytes)

    def counted(self, items: Iterable[Item], name: str) -> Iterator[Item]:
        """The same items; how many there were is told as they are taken."""
        for number, item in enumerate(items, 1):
            yield item
            if number % EVERY_ITEMS == 0:
                self.at(f"{self._words}: {number} {name}")


@contextmanager
def work(words: str, *, as_json: bool, console: Console = stderr) -> Iterator[Work]:
    """Work that begins now, and leaves nothing on the terminal when it has ended."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        BytesColumn(),
        console=console,
        transient=True,
        disable=as_json or not console.is_terminal,
    )
    with progress:
        yield Work(progress, progress.add_task(words, total=None))
