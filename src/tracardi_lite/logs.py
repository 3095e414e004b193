"""Logs: one line per fact, for programs (JSON) or people, on standard error.

``configure`` sends structlog's lines and those of the standard library's loggers (aiohttp, asyncio) through the same
processors. Lines are written by a thread of their own: a reader that has stopped reading, a full pipe, a slow disk
never stops the event loop. What waits for it is bounded; beyond that lines are dropped and counted in a line of their
own. Calls below the level cost one method call.

Levels mean: info, lifecycle; warning, odd but nothing lost; error, data lost or a person needed; single events and
requests only at debug.
"""

from __future__ import annotations

import atexit
import logging
import queue
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Literal, Self, TextIO

import msgspec
import structlog

LINES_MAX = 2_000
"""Lines that may wait for a slow reader; a burst of errors, and at most a few MB."""

CLOSE_TIMEOUT_S = 2.0
"""How long closing waits for that reader."""

_NOISY = {"aiohttp.access": logging.WARNING, "asyncio": logging.WARNING, "elastic_transport": logging.WARNING}
"""Libraries that log requests or housekeeping at info: heard at debug only."""

EventDict = MutableMapping[str, Any]


def configure(
    level: Literal["debug", "info", "warning", "error"] = "warning",
    format: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
) -> Logs:
    """Take over logging for this process until the result is closed (it is a context manager).

    ``auto`` is console where ``stream`` (default: standard error) is a terminal, else json.
    """
    stream = stream or sys.stderr
    people = format == "console" or (format == "auto" and stream.isatty())
    return Logs(getattr(logging, level.upper()), people, stream)


class Logs:
    def __init__(self, level: int, people: bool, stream: TextIO) -> None:
        self._lines = _Lines(stream, people)
        shared: list[Any] = [
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ]
        rendering: list[Any] = _for_people(stream) if people else _for_programs()
        structlog.configure(
            processors=[*shared, *rendering],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.WriteLoggerFactory(self._lines),  # type: ignore[arg-type]
            cache_logger_on_first_use=True,
        )
        self._root = logging.getLogger()
        self._handlers, self._level = self._root.handlers[:], self._root.level
        handler = logging.StreamHandler(self._lines)
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            )
        )
        self._root.handlers[:] = [handler]
        self._root.setLevel(level)
        self._noisy = {name: logging.getLogger(name).level for name in _NOISY}
        if level > logging.DEBUG:
            for name, least in _NOISY.items():
                logging.getLogger(name).setLevel(max(least, level))
            logging.getLogger("aiohttp.server").addFilter(_is_ours)
            logging.getLogger("elastic_transport.node_pool").addFilter(_is_news)
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, within ``CLOSE_TIMEOUT_S``, and give logging back. Idempotent."""
        if self._lines.closed:
            return
        atexit.unregister(self.close)
        self._root.handlers[:] = self._handlers
        self._root.setLevel(self._level)
        for name, level in self._noisy.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger("aiohttp.server").removeFilter(_is_ours)
        logging.getLogger("elastic_transport.node_pool").removeFilter(_is_news)
        structlog.reset_defaults()
        self._lines.close()


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a fault that aiohttp reports is the server's. Who hangs up in the middle of a request, or sends what
    can't be parsed, has had a 400 or wants no answer; an error and a traceback for each would let anybody who can
    connect fill a disk with them."""
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        status = getattr(error, "code", None)
        if isinstance(error, ConnectionError) or (isinstance(status, int) and 400 <= status < 500):
            return False
        error = error.__cause__
    return True


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line about an Elasticsearch node says what was not so before. The client tells of every failure in a
    row, several times a second while the node is away: the first, and the return, are enough."""
    args = record.args
    in_a_row = args[1] if isinstance(args, tuple) and len(args) > 1 else None
    return not isinstance(in_a_row, int) or in_a_row == 1


def _for_programs() -> list[Any]:
    return [structlog.processors.format_exc_info, _json]


def _for_people(stream: TextIO) -> list[Any]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    return [_one_line, renderer]


_encoder = msgspec.json.Encoder(enc_hook=repr)


def _json(_: object, __: str, event: EventDict) -> str:
    """One JSON object, the fields that every line has first. Never raises for what somebody logged."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    line = {**first, **event}
    try:
        return _encoder.encode(line).decode()
    except (TypeError, ValueError, RecursionError):
        # Keys that are no strings, lone surrogates, a structure that contains itself.
        return _encoder.encode({str(name): _harmless(value) for name, value in line.items()}).decode()


def _harmless(value: object) -> object:
    if isinstance(value, int | float | None):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text.encode("ascii", "backslashreplace").decode()


_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def _one_line(_: object, __: str, event: EventDict) -> EventDict:
    """Show control characters instead of sending them: no forged second line, no escape codes to a terminal."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = value.translate(_CONTROLS)
    return event


class _Lines:
    """A text stream whose ``write`` never waits; each call is a whole line."""

    def __init__(self, stream: TextIO, people: bool) -> None:
        self.closed = False
        self._stream = stream
        self._people = people
        self._waiting: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> int:
        if self.closed:
            # A logger that outlived its configuration; rare, and better late and slow than lost.
            self._put(line)
            return len(line)
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1
        return len(line)

    def flush(self) -> None:
        """Lines are flushed as they are written."""

    def close(self) -> None:
        self.closed = True
        try:
            self._waiting.put(None, timeout=CLOSE_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._put(line)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                event = {"level": "warning", "event": "log lines dropped: their reader is too slow", "lines": dropped}
                self._put(f"{event['event']} lines={dropped}\n" if self._people else _json(None, "", event) + "\n")

    def _put(self, line: str) -> None:
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            # Standard error is closed or gone: there is nowhere left to say so.
            pass
