"""Passages about the parts of the Python library, read from the sources of the running interpreter.

Nothing is imported or executed: docstrings come from syntax trees, the language reference from the literal
that `pydoc_data/topics.py` consists of. A module that this version or distribution lacks is passed over.
"""

from __future__ import annotations

import ast
import inspect
import logging
import re
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.data.library_parts import LIBRARY_PARTS, LibraryPart
from edge_sdk.examples import Example
from hetlora.errors import DataError

_LOG = logging.getLogger(__name__)

MIN_WORDS: Final = 10
# Longer passages were measured to be no easier to tell apart, and cost more tokens.
MAX_WORDS: Final = 24
# Below this share of ordinary words a passage is a table, a signature or code.
_PROSE_SHARE: Final = 0.75
_TEST_FOLDERS: Final = frozenset({"test", "tests", "idle_test"})

_DOCTEST: Final = re.compile(r"^[ \t]*>>>.*(?:\n[ \t]*\S.*)*", re.MULTILINE)
_MARKUP_LINE: Final = re.compile(r"^[ \t]*(?:\.\. .*|[-=*~^#_+|][-=*~^#_+| \t]{2,}|\S.*::=.*)$", re.MULTILINE)
_SIGNATURE_LINE: Final = re.compile(r"^[ \t]*[\w.]+\([^()]*\)(?:[ \t]*->.*|:)?[ \t]*$", re.MULTILINE)
_PARAGRAPH_END: Final = re.compile(r"\n\s*\n")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?:])\s+(?=[^a-z])|\n\s*\n")
_WORD: Final = re.compile(r"[\"'(*`]*[A-Za-z][A-Za-z'/-]*[\"')*`]*[.,;:!?]*[\"')]*")
_WORD_BREAK: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_+")


def standard_library_passages(library: Path | None = None) -> list[Example]:
    """Collect the passages of every library part, in the order of the table, then of module and line.

    A passage is the opening of one docstring, headed by the name of the class or function, or the opening
    of one paragraph of the language reference. One that occurs twice is kept once, and one that occurs
    under two labels not at all; case, spaces, digits and punctuation make no difference to that.

    Raises:
        DataError: `library` (by default that of the running interpreter) holds no sources.
    """
    library = Path(sysconfig.get_path("stdlib")) if library is None else library
    labels_of: dict[str, set[str]] = defaultdict(set)
    first: dict[str, Example] = {}
    for part in LIBRARY_PARTS:
        for heading, document in _documents(library, part):
            text = opening(document)
            key = re.sub(r"[^a-z]+", "", text.casefold())
            if key:
                labels_of[key].add(part.label)
                first.setdefault(key, Example(f"{heading}: {text}" if heading else text, part.label))
    passages = [example for key, example in first.items() if len(labels_of[key]) == 1]
    if not passages:
        raise DataError(
            "the standard library has no sources", got=library, expected="a folder with argparse.py"
        )
    return passages


def opening(document: str) -> str:
    """The first whole sentences of a docstring or paragraph, at most MAX_WORDS words; empty if not prose.

    Examples, tables and signatures are left out; a sentence is cut only where whole ones are fewer than
    MIN_WORDS words.
    """
    text = inspect.cleandoc(document)
    for noise in (_DOCTEST, _MARKUP_LINE, _SIGNATURE_LINE):
        text = noise.sub("", text)
    words: list[str] = []
    for sentence in _SENTENCE_END.split(text.strip()):
        more = sentence.split()
        if len(words) >= MIN_WORDS and len(words) + len(more) > MAX_WORDS:
            break
        words = (words + more)[:MAX_WORDS]
    ordinary = sum(1 for word in words if _WORD.fullmatch(word))
    return " ".join(words) if len(words) >= MIN_WORDS and ordinary >= _PROSE_SHARE * len(words) else ""


def _documents(library: Path, part: LibraryPart) -> Iterator[tuple[str, str]]:
    """Every docstring and every paragraph of a topic of one part, with its heading, in a fixed order."""
    for module in part.modules:
        for path in _source_files(library, module):
            tree = _syntax_tree(path)
            if tree is not None:
                yield from _docstrings(tree)
    topics = _topics(library) if part.topics else {}
    for name in part.topics:
        yield from (("", paragraph) for paragraph in _PARAGRAPH_END.split(topics.get(name, "")))


def _source_files(library: Path, module: str) -> list[Path]:
    file = library / f"{module}.py"
    found = [file] if file.is_file() else sorted((library / module).rglob("*.py"))
    return [path for path in found if not _TEST_FOLDERS.intersection(path.relative_to(library).parts)]


def _docstrings(tree: ast.AST, names: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """The docstrings of a module, its classes and functions, each headed by its names within the module."""
    if isinstance(tree, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield _heading(names), ast.get_docstring(tree) or ""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(node, (*names, node.name))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _docstrings(node, names)


def _heading(names: tuple[str, ...]) -> str:
    """The words that names in code consist of: ("TarFile", "extract_all") gives "Tar File extract all"."""
    words = " ".join(_WORD_BREAK.sub(" ", name) for name in names if name != "__init__")
    return " ".join(words.split())


def _topics(library: Path) -> dict[str, str]:
    """The dictionary literal of pydoc_data/topics.py, or nothing where it is not installed."""
    tree = _syntax_tree(library / "pydoc_data" / "topics.py")
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            found = ast.literal_eval(node.value)
            return {str(name): str(text) for name, text in found.items()}
    return {}


def _syntax_tree(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            # Newer versions warn of escapes such as "\d" in the library's own older docstrings.
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        _LOG.info("source_passed_over path=%s reason=%s", path, type(error).__name__)
        return None
