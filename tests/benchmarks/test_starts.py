"""What is promised of a start that cannot be, and how starts read."""

import pytest

from benchmarks.starts import Start, broken, markdown, read, write

TOLD = "cannot start: models/vae/manifest.json: is missing"
SOUND = Start(fault="manifest missing", names="models/vae/manifest.json", seconds=4.0, status=1, lines=[TOLD])


def seen(**changes: object) -> Start:
    return SOUND.model_copy(update=changes)


def test_an_early_end_with_status_1_and_one_line_that_names_the_file_is_as_promised():
    assert list(broken(SOUND)) == []


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (seen(status=None, seconds=60.0), "it did not end in 60 s"),
        (seen(seconds=10.1), "it took more than 10 s"),
        (seen(status=0), "it ended with status 0"),
        (seen(status=-11), "it ended with status -11"),
        (seen(lines=["a warning", TOLD]), "there were 2 lines on stderr"),
        (seen(lines=[TOLD.replace("vae", "gan")]), "no line named models/vae/manifest.json"),
        (seen(lines=["cannot start: something was wrong"]), "no line named models/vae/manifest.json"),
    ],
)
def test_what_was_not_kept_is_told(start, told):
    assert list(broken(start)) == [told]


def test_a_start_that_says_nothing_breaks_both_promises_of_the_line():
    assert list(broken(seen(lines=[]))) == ["there were 0 lines on stderr", "no line named models/vae/manifest.json"]


def test_a_line_a_fault_with_the_beginnings_of_digests():
    late = seen(seconds=11.0, lines=[f"{TOLD} {'0123456789ab' + 52 * 'c'} a|b"])
    _, _, first, second = markdown([SOUND, late]).splitlines()
    assert first == f"| manifest missing | 4.0 s | 1 | 1 | `{TOLD}` | yes |"
    assert second == f"| manifest missing | 11.0 s | 1 | 1 | `{TOLD} 0123456789ab... a/b` | it took more than 10 s |"


def test_starts_are_read_as_they_were_written(tmp_path):
    write([SOUND], tmp_path / "starts.json")
    assert read(tmp_path / "starts.json") == [SOUND]
