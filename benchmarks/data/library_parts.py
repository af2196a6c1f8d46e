"""The parts of the Python library that passages are sorted into: one frozen table, the demo's label set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LibraryPart:
    """One label: its name, the text that describes it, and the sources whose passages carry it.

    `modules` are top-level modules and packages of the standard library, some of which are missing from some
    versions and distributions; `topics` are names in `pydoc_data.topics`.
    """

    label: str
    description: str
    modules: tuple[str, ...]
    topics: tuple[str, ...] = ()


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LIBRARY_PARTS: Final = (
    LibraryPart(
        "mathematics",
        "Numbers and mathematics",
        _names("_pydecimal decimal fractions numbers random statistics"),
    ),
    LibraryPart(
        "text processing",
        "Text processing",
        _names("codecs difflib encodings gettext locale re shlex string stringprep textwrap"),
        _names("formatstrings string-methods strings"),
    ),
    LibraryPart(
        "files",
        "Files and folders",
        _names(
            "_pyio filecmp fileinput fnmatch genericpath glob io linecache ntpath os pathlib posixpath "
            "shutil stat tempfile"
        ),
    ),
    LibraryPart(
        "archives and data formats",
        "Archives and data formats",
        _names(
            "_compression aifc bz2 chunk configparser copyreg csv dbm gzip json lzma netrc pickle "
            "pickletools plistlib shelve sqlite3 sunau tarfile tomllib wave zipapp zipfile"
        ),
    ),
    LibraryPart(
        "concurrency",
        "Concurrent execution",
        _names("_threading_local asyncio concurrent contextvars multiprocessing sched subprocess threading"),
    ),
    LibraryPart(
        "networking",
        "Networking and the web",
        _names(
            "asyncore cgi ftplib http ipaddress selectors socket socketserver ssl telnetlib urllib "
            "webbrowser wsgiref xmlrpc"
        ),
    ),
    LibraryPart(
        "e-mail",
        "Electronic mail",
        _names("base64 email imaplib mailbox mailcap mimetypes nntplib poplib quopri smtpd smtplib uu"),
    ),
    LibraryPart(
        "markup",
        "Markup languages, XML and HTML",
        _names("_markupbase html xml"),
    ),
    LibraryPart(
        "user interfaces",
        "User interfaces",
        _names("argparse cmd code codeop curses getopt getpass optparse pty rlcompleter tkinter tty turtle"),
    ),
    LibraryPart(
        "testing and debugging",
        "Testing and debugging",
        _names(
            "bdb cProfile cgitb doctest logging pdb profile pstats timeit trace traceback tracemalloc "
            "unittest warnings"
        ),
        _names("debugger"),
    ),
    LibraryPart(
        "importing and packaging",
        "Importing modules, installing packages",
        _names(
            "compileall distutils ensurepip imp importlib modulefinder pkgutil py_compile runpy site "
            "sysconfig venv zipimport"
        ),
        _names("import"),
    ),
    LibraryPart(
        "language reference",
        "The language itself, statements and expressions",
        (),
        _names(
            "assert assignment async atom-identifiers atom-literals attribute-access augassign binary "
            "bitwise booleans break calls class comparisons context-managers continue conversions "
            "customization del dynamic-features exceptions execmodel exprlists for function global "
            "id-classes identifiers if in lambda naming nonlocal objects operator-summary pass power raise "
            "return sequence-types shifting slicings specialnames subscriptions truth try types "
            "typesfunctions typesmapping typesmethods typesseq unary while with yield"
        ),
    ),
)
