"""Log records as JSON lines."""

import json
import logging
import os

import pytest

from app.logs import MAX_MESSAGE, MAX_TRACE, JsonLines


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    found = (type(error), error, error.__traceback__) if error else None
    return JsonLines().format(logging.LogRecord("app.x", logging.WARNING, "", 0, message, arguments, found))


def test_a_record_has_time_level_logger_and_message():
    fields = json.loads(line("so many: %d", 3))
    assert fields.pop("time").endswith("+00:00")
    assert fields.pop("process") == os.getpid()
    assert fields == {"level": "warning", "logger": "app.x", "message": "so many: 3"}


@pytest.mark.parametrize(
    "text", ['a\n{"level": "error"}', "a\r\nb", "a\x1b[31mb", 'quote " and \\', "\u2028\x85\x00", "\ud800"]
)
def test_a_text_cannot_forge_a_record(text):
    written = line("%s", text)
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written)["message"] == text


def test_a_long_message_keeps_its_beginning_and_a_long_trace_its_end():
    message = json.loads(line("begin" + "x" * 10**6))["message"]
    assert len(message) == MAX_MESSAGE
    assert message.startswith("begin")
    try:
        raise ValueError("y" * 10**6 + "end")
    except ValueError as error:
        written = line("failed", error=error)
    trace = json.loads(written)["trace"]
    assert len(trace) == MAX_TRACE
    assert trace.endswith("end")
    assert "\n" not in written
