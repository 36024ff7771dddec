"""One record, one line of JSON, whatever is in it."""

import json
import logging
import subprocess
import sys

import pytest

from app.logs import MAX_MESSAGE, MAX_TRACE, JsonLines


def line(message: str, *arguments: object, failed: bool = False) -> str:
    error = sys.exc_info() if failed else None
    return JsonLines().format(logging.LogRecord("app.x", logging.WARNING, "", 0, message, arguments, error))


def test_a_record_has_time_level_logger_and_message():
    fields = json.loads(line("so many: %d", 3))
    assert fields.pop("time").endswith("+00:00")
    assert fields == {"level": "warning", "logger": "app.x", "message": "so many: 3"}


@pytest.mark.parametrize(
    "text", ['a\n{"level": "error"}', "a\r\nb", "a\x1b[31mb", 'quote " and \\', "\u2028\x85\x00", "\ud800"]
)
def test_no_text_leaves_its_line(text):
    written = line("%s", text)
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written)["message"] == text


def test_a_long_message_is_cut():
    message = json.loads(line("x" * 10**6))["message"]
    assert len(message) == MAX_MESSAGE
    assert message.endswith("...")


def deep(levels: int) -> None:
    if levels == 0:
        raise ValueError("the cause")
    deep(levels - 1)


def test_the_end_of_a_trace_is_kept_where_it_is_long():
    try:
        exec("x = 1\n" * 10 + "deep(200)", {"deep": deep})
    except ValueError:
        written = line("failed", failed=True)
    trace = json.loads(written)["trace"]
    assert "\n" not in written
    assert trace.endswith("ValueError: the cause")
    try:
        raise ValueError("y" * 10**6)
    except ValueError:
        trace = json.loads(line("failed", failed=True))["trace"]
    assert len(trace) == MAX_TRACE


def test_malformed_forms_are_not_logged():
    # In a process of its own, as pytest has the loggers of this one.
    program = """
import logging
from app.api.forms import FileForm, InvalidForm
from app.logs import configure
configure("debug")
for body in (b"a", b"--B\\r\\nA\\0: b", b"--B\\r\\nA: b\\r\\n\\r\\nc\\r\\n--B--\\r\\nafter the end"):
    try:
        FileForm("multipart/form-data; boundary=B", "file", 1).feed(body)
    except InvalidForm:
        pass
logging.getLogger("app").debug("the end")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["the end"]
