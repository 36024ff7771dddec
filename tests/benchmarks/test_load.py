"""What the load script prints, read; what it sends, as a server would read it."""

from email import message_from_bytes

import pytest

from benchmarks.load import MULTIPART, LoadFailed, read_result, upload_body

RESULT = (
    'RESULT {"requests":1200,"bytes":640000,"duration_us":3000000,"p50_us":1500,"p90_us":2500,"p99_us":9000,'
    '"max_us":20000,"connect":%d,"read":0,"write":0,"timeout":%d,"status":%d}'
)
BEFORE = "Running 3s test @ http://127.0.0.1:1/generate\n  1 threads and 64 connections\n"


def test_figures_come_in_seconds_and_milliseconds():
    load = read_result(BEFORE + RESULT % (0, 0, 0) + "\n")
    assert (load.requests, load.bytes, load.duration_s) == (1200, 640000, 3.0)
    assert (load.p50_ms, load.p90_ms, load.p99_ms, load.max_ms) == (1.5, 2.5, 9.0, 20.0)
    assert load.problem is None


@pytest.mark.parametrize("errors", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_one_error_of_any_kind_is_a_problem(errors):
    assert read_result(RESULT % errors).problem is not None


def test_no_answer_at_all_is_a_problem():
    assert read_result((RESULT % (0, 0, 0)).replace("1200", "0")).problem == "no answer at all"


def test_output_without_a_result_is_no_measurement():
    with pytest.raises(LoadFailed, match="Running 3s test"):
        read_result(BEFORE)


def test_the_upload_is_one_png_called_file(digit):
    message = message_from_bytes(f"Content-Type: {MULTIPART}\r\n\r\n".encode() + upload_body())
    [part] = list(message.walk())[1:]
    assert part.get_param("name", header="Content-Disposition") == "file"
    assert part.get_content_type() == "image/png"
    assert part.get_payload(decode=True) == digit
