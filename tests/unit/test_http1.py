"""What the express lane's parser takes, what it leaves to the complete server, and the answers that it writes.

That it takes nothing in another sense than aiohttp is a property: ``tests/property/test_http1.py``.
"""

from __future__ import annotations

import json
from http.client import HTTPResponse
from io import BytesIO
from typing import Any
from unittest.mock import Mock

import pytest

from tracardi_lite.intake import http1

PLAIN = b"POST /track HTTP/1.1\r\nHost: h\r\nContent-Length: 12"


def test_a_plain_head_is_understood() -> None:
    head = PLAIN + b"\r\nContent-Type:application/json \r\nX-Empty:\r\nX-Name: \t caf\xc3\xa9, \xff\t"

    request = http1.parse(head)

    assert request == http1.Request(
        method="POST",
        target="/track",
        headers={
            "host": "h",
            "content-length": "12",
            "content-type": "application/json",
            "x-empty": "",
            "x-name": "café, \ufffd",
        },
        length=12,
        close=False,
    )


def test_without_a_length_there_is_none() -> None:
    request = http1.parse(b"GET /health/live?a=b HTTP/1.1\r\nHost: h")

    assert request is not None
    assert (request.method, request.target, request.length) == ("GET", "/health/live?a=b", None)


@pytest.mark.parametrize(("value", "close"), [(b"close", True), (b"Close", True), (b"keep-alive", False)])
def test_it_is_told_whether_the_connection_goes_on(value: bytes, close: bool) -> None:
    request = http1.parse(PLAIN + b"\r\nConnection: " + value)

    assert request is not None
    assert request.close is close


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"POST /track HTTP/1.1",
        b"POST /track HTTP/1.1\r\nContent-Length: 12",
        b"POST /track HTTP/1.0\r\nHost: h",
        b"POST /track HTTP/1.1 \r\nHost: h",
        b"post /track HTTP/1.1\r\nHost: h",
        b"POST  /track HTTP/1.1\r\nHost: h",
        b"POST http://h/track HTTP/1.1\r\nHost: h",
        b"POST * HTTP/1.1\r\nHost: h",
        b"CONNECT /track HTTP/1.1\r\nHost: h",
        b"POST /tr\xc3\xa9ck HTTP/1.1\r\nHost: h",
        b"\r\n" + PLAIN,
        PLAIN + b"\r\n",
        PLAIN + b"\r\nno colon",
        PLAIN + b"\r\nX : a",
        PLAIN + b"\r\n: a",
        PLAIN + b"\r\nX: a\r\n b",
        PLAIN + b"\r\nX: a\nY: b",
        PLAIN + b"\r\nX: a\rY: b",
        PLAIN + b"\r\nX: a\x00",
        PLAIN + b"\r\nX: a\x7f",
        PLAIN + b"\r\nHOST: h",
        PLAIN + b"\r\ncontent-length: 12",
        PLAIN + b"\r\nX: a\r\nx: a",
        PLAIN + b"\r\nTransfer-Encoding: chunked",
        PLAIN + b"\r\ntransfer-encoding: identity",
        PLAIN + b"\r\nExpect: 100-continue",
        PLAIN + b"\r\nUpgrade: websocket",
        PLAIN + b"\r\nProxy-Connection: close",
        PLAIN + b"\r\nConnection: close, te",
        PLAIN + b"\r\nConnection:",
        PLAIN + b"".join(b"\r\nX%d: a" % number for number in range(http1.FIELDS_MAX - 1)),
    ],
)
def test_what_is_not_plain_is_for_the_complete_server(head: bytes) -> None:
    assert http1.parse(head) is None


@pytest.mark.parametrize("value", [b"", b"+5", b"-5", b"5, 5", b"0x5", b"5 5", b"5.0", b"\xd9\xa5", b"1" * 16])
def test_a_length_is_a_few_ascii_digits(value: bytes) -> None:
    assert http1.parse(b"POST /track HTTP/1.1\r\nHost: h\r\nContent-Length: " + value) is None


def read(data: bytes) -> HTTPResponse:
    response = HTTPResponse(Mock(makefile=lambda mode: BytesIO(data)))
    response.begin()
    return response


@pytest.mark.parametrize("status", [200, 201, 226, 401, 408, 413, 422, 500, 503])
@pytest.mark.parametrize("close", [False, True])
def test_an_answer_is_read_by_a_client(status: int, close: bool) -> None:
    headers = {"X-Context": "café", "Retry-After": "5"}

    response = read(http1.response(status, b'{"a":1}', headers, "Thu, 01 Jan 1970 00:00:00 GMT", close=close))

    assert (response.status, response.version, response.will_close) == (status, 11, close)
    assert json.loads(response.read()) == {"a": 1}
    assert dict(response.getheaders()) == {
        "Server": "tracardi-lite",
        "Content-Type": "application/json",
        "Content-Length": "7",
        "Date": "Thu, 01 Jan 1970 00:00:00 GMT",
        "X-Context": "café".encode().decode("latin-1"),
        "Retry-After": "5",
        **({"Connection": "close"} if close else {}),
    }


def test_the_date_is_made_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[float] = [0.9]
    made: list[Any] = []
    real = http1.formatdate
    monkeypatch.setattr(http1.time, "time", lambda: now[0])
    monkeypatch.setattr(http1, "formatdate", lambda *args, **kwargs: made.append(args) or real(*args, **kwargs))
    clock = http1.Clock()

    assert clock.date() == clock.date() == "Thu, 01 Jan 1970 00:00:00 GMT"
    now[0] = 1.0
    assert clock.date() == "Thu, 01 Jan 1970 00:00:01 GMT"
    assert len(made) == 2
