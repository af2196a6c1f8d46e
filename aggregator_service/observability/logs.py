"""Lines for people or for machines; either way with what is known of the request or round at hand."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Literal

from aggregator_service.observability.log_context import facts

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

OURS: Final = ("aggregator_service", "hetlora")
_PAIR: Final = re.compile(r"(\w+)=(.*)", re.DOTALL)


class TextLines(logging.Formatter):
    """`time level logger message key=value ...`; what is told from outside begins no line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        told = fields_of(record)
        also = (f"{name}={value}" for name, value in facts().items() if name not in told)
        line = " ".join((_time(record), record.levelname.lower(), record.name, record.message, *also))
        return "".join(character if character.isprintable() else " " for character in line)


class JsonLines(logging.Formatter):
    """One object for each line: the message, its pairs as fields, and what is known of the work at hand."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            **facts(),
            **fields_of(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


_FORMATTERS: Final[dict[LogFormat, type[logging.Formatter]]] = {"text": TextLines, "json": JsonLines}


def set_up_logging(log_format: LogFormat, level: LogLevel) -> None:
    """Log to standard error: our own lines from `level` on, those of libraries if they warn."""
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[log_format]())
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, _number(level)), force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(_number(level))


def _number(level: LogLevel) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """The pairs `key=value` of a line, told from its template, as a value may have blanks and equal signs."""
    if not isinstance(record.msg, str) or not isinstance(record.args, tuple | None):
        return {}
    values, fields = iter(record.args or ()), {}
    for word in record.msg.split(" "):
        own = tuple(islice(values, word.count("%") - 2 * word.count("%%")))
        try:
            pair = _PAIR.fullmatch(word % own)
        except (TypeError, ValueError):  # a library's line with a form of its own
            return {}
        if pair:
            fields[pair[1]] = pair[2]
    return fields


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
