"""Logs: one line each, from both logging worlds, and never in the way."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from aiohttp.http_exceptions import HttpProcessingError

from tracardi_lite import logs


class Pipe(io.StringIO):
    """A stream whose reader can stop reading."""

    def __init__(self) -> None:
        super().__init__()
        self.flows = threading.Event()
        self.flows.set()
        self.stuck = threading.Event()

    def write(self, text: str) -> int:
        if not self.flows.is_set():
            self.stuck.set()
            assert self.flows.wait(10)
        return super().write(text)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.flows.set()


def lines(pipe: Pipe) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pipe.getvalue().splitlines()]


def test_a_line_is_a_json_object_with_time_level_and_event_first(pipe: Pipe) -> None:
    with logs.configure("info", "json", pipe):
        structlog.get_logger().info("serving", port=8686)
    [line] = lines(pipe)
    assert list(line) == ["timestamp", "level", "event", "port"]
    assert (line["level"], line["event"], line["port"]) == ("info", "serving", 8686)
    assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_written(pipe: Pipe) -> None:
    with logs.configure("warning", "json", pipe):
        structlog.get_logger().info("quiet")
        logging.getLogger("aiohttp.server").info("quiet")
        structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(pipe)] == ["loud"]


def test_the_standard_librarys_loggers_come_out_the_same_way(pipe: Pipe) -> None:
    with logs.configure("info", "json", pipe):
        logging.getLogger("aiohttp.server").error("failed on %s", "/track")
    [line] = lines(pipe)
    assert (line["event"], line["logger"], line["level"]) == ("failed on /track", "aiohttp.server", "error")


def test_requests_are_logged_at_debug_only(pipe: Pipe) -> None:
    with logs.configure("info", "json", pipe):
        logging.getLogger("aiohttp.access").info("GET /")
    with logs.configure("debug", "json", pipe):
        logging.getLogger("aiohttp.access").info("POST /")
    assert [line["event"] for line in lines(pipe)] == ["POST /"]


def test_elasticsearchs_client_logs_requests_at_debug_only_and_a_node_that_is_away_once(pipe: Pipe) -> None:
    pool = logging.getLogger("elastic_transport.node_pool")
    with logs.configure("info", "json", pipe):
        logging.getLogger("elastic_transport.transport").info("POST /_bulk")
        for in_a_row in (1, 2, 3):
            pool.warning("Node %r has failed for %d times in a row, putting on %d second timeout", "n", in_a_row, 1)
        pool.warning("Node %r has been marked alive after a successful request", "n")
    assert [line["event"].split(" has ")[1][:12] for line in lines(pipe)] == ["failed for 1", "been marked "]
    with logs.configure("debug", "json", pipe):
        pool.warning("Node %r has failed for %d times in a row, putting on %d second timeout", "n", 2, 1)
    assert len(lines(pipe)) == 3, "at debug all is heard"


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_value_with_line_breaks_stays_one_line(pipe: Pipe, format: Any) -> None:
    with logs.configure("info", format, pipe):
        structlog.get_logger().info("a\nb", agent="x\n2026 [error] forged \x1b[31m\u2028")
        logging.getLogger("third").warning("a\rb\nc")
    text = pipe.getvalue()
    assert text.count("\n") == 2
    assert "\r" not in text
    assert "\x1b" not in text


def test_an_exception_is_kept_with_its_trace(pipe: Pipe) -> None:
    with logs.configure("error", "json", pipe):
        try:
            raise KeyError("who")
        except KeyError:
            structlog.get_logger().exception("lost")
    [line] = lines(pipe)
    assert "KeyError: 'who'" in line["exception"]


@pytest.mark.parametrize("value", [{(1, 2): object()}, "\ud800", float("nan"), b"\xff", {1, 2}])
def test_whatever_is_logged_there_is_a_line(pipe: Pipe, value: object) -> None:
    with logs.configure("info", "json", pipe):
        structlog.get_logger().info("odd", value=value, other=1)
    [line] = lines(pipe)
    assert (line["event"], line["other"]) == ("odd", 1)


def test_a_value_that_contains_itself_does_not_end_the_program(pipe: Pipe) -> None:
    circle: list[object] = []
    circle.append(circle)
    with logs.configure("info", "json", pipe):
        structlog.get_logger().info("odd", value=circle)
    assert lines(pipe)[0]["event"] == "odd"


def test_what_a_client_does_wrong_is_no_error_of_the_servers(pipe: Pipe) -> None:
    faults = [HttpProcessingError(code=400), HttpProcessingError(code=500), ConnectionResetError(), ValueError("ours")]
    with logs.configure("warning", "json", pipe):
        for fault in faults:
            try:
                raise fault
            except type(fault):
                logging.getLogger("aiohttp.server").exception(f"{fault!r}")
    assert [line["event"] for line in lines(pipe)] == [repr(faults[1]), repr(faults[3])]


def test_a_reader_that_has_stopped_stops_nobody_and_what_was_dropped_is_counted(pipe: Pipe) -> None:
    with logs.configure("info", "json", pipe):
        log = structlog.get_logger()
        pipe.flows.clear()
        log.info("first")
        assert pipe.stuck.wait(10)
        for number in range(logs.LINES_MAX + 5):
            log.info("more", number=number)
        pipe.flows.set()
    found = lines(pipe)
    assert len(found) == 1 + 1 + logs.LINES_MAX
    [dropped] = [line for line in found if "dropped" in line["event"]]
    assert (dropped["lines"], dropped["level"]) == (5, "warning")


def test_closing_gives_logging_back(pipe: Pipe) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("asyncio").level)
    found = logs.configure("debug", "console", pipe)
    assert root.handlers != before[0]
    found.close()
    found.close()
    assert (root.handlers, root.level, logging.getLogger("asyncio").level) == before


def test_a_stream_that_is_gone_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    with logs.configure("info", "json", stream):
        structlog.get_logger().info("into the void")
