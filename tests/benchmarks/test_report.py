"""Tables, pictures and files of results, read again as a reader would."""

import io

from PIL import Image

from benchmarks.cells import GENERATE_ALONE
from benchmarks.documents import write_between_markers
from benchmarks.report import markdown, overview, plot, read_results, write_results
from benchmarks.summary import outcomes
from tests.benchmarks.measured import record

FACTS = {
    "processor": "a processor",
    "cores": 2,
    "allocator": "none",
    "commit": "abc",
    "date": "today",
    "versions": {"torch": "1.2"},
    "peers": {"ray": ["ray==3.4"]},
}
RECORDS = [
    *(record("digits", requests=count, number=number) for number, count in ((1, 30000), (2, 50000))),
    *(record("ray", requests=count, number=number) for number, count in ((1, 10000), (2, 30000))),
    *(record("fastapi", number=number, problem="it did not start") for number in (1, 2)),
]


def row(text: str, server: str) -> list[str]:
    [line] = [line for line in text.splitlines() if server in line and line.startswith("|")]
    return [column.strip() for column in line.strip("|").split("|")]


def test_a_table_holds_medians_spreads_and_ratios():
    text = markdown(RECORDS, FACTS)
    own, peer = row(text, "**digits**"), row(text, "ray")
    assert own[1:3] == ["plain", "4,000 (3,000 to 5,000)"]
    assert peer[2:] == ["2,000 (1,000 to 3,000)", "5.0", "12.0", "512.0", "2.00x (1.67 to 3.00)", ""]
    assert "2 rounds of 10 s" in text
    assert "ray==3.4" in text


def test_a_failed_server_has_a_line_without_figures():
    failed = row(markdown(RECORDS, FACTS), "fastapi")
    assert failed[2] == "failed"
    assert not any(failed[3:])
    assert len(failed) == len(row(markdown(RECORDS, FACTS), "ray"))


def test_the_overview_compares_with_the_best_of_the_others_and_counts_no_failure():
    alone = [record("digits", file="fast", cell=GENERATE_ALONE, requests=7000)]
    lines = overview([*RECORDS, record("litserve", requests=5000), *alone], FACTS).splitlines()
    assert lines[0].split(" | ")[3:-1] == ["digits", "ray", "fastapi", "litserve"]
    assert lines[2] == "| generate gan, 1 image a request | 64 | plain | 4,000 | 2,000 | failed | 500 | 2.00x |"
    assert lines[3] == "| generate gan, 1 image a request | 1 | fast | 700 |  |  |  |  |"
    assert "2 rounds of 10 s" in lines[-1]


def test_results_are_read_as_they_were_written(tmp_path):
    write_results("short", RECORDS, FACTS, tmp_path)
    assert read_results(tmp_path / "short.json") == (RECORDS, FACTS)
    with Image.open(tmp_path / "short.png") as image:
        assert image.format == "PNG"


def test_the_plot_has_room_for_every_cell_and_for_failures():
    with Image.open(io.BytesIO(plot(outcomes(RECORDS)))) as image:
        assert image.size == (600, 420)


def test_only_what_stands_between_the_markers_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: begin -->\nold \\1\n<!-- bench: end -->\nafter\n")
    assert write_between_markers(page, "bench", "new \\1")
    assert page.read_text() == "before\n<!-- bench: begin -->\nnew \\1\n<!-- bench: end -->\nafter\n"


def test_a_page_without_markers_or_no_page_stays_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing of this kind\n")
    assert not write_between_markers(page, "bench", "new")
    assert not write_between_markers(tmp_path / "none.md", "bench", "new")
    assert page.read_text() == "nothing of this kind\n"
