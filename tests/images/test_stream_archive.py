"""ZIP and IDX files written front to back."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from app.images.stream_archive import ZipDirectory, folder_name, zip_entry


def archive(entries: list[tuple[str, bytes]], per_call: int) -> bytes:
    directory, content = ZipDirectory(), b""
    for start in range(0, len(entries), per_call):
        written = b"".join(zip_entry(name, data) for name, data in entries[start : start + per_call])
        directory.add(written)
        content += written
    return content + directory.end()


@pytest.mark.parametrize("per_call", [1, 4])
def test_an_archive_holds_its_entries_in_order(per_call):
    entries = [("7/000001.png", b"seven"), ("ü/000002.png", b""), ("000003.png", b"PK\x03\x04" * 9)]
    with zipfile.ZipFile(BytesIO(archive(entries, per_call))) as opened:
        assert opened.testzip() is None
        assert [(name, opened.read(name)) for name in opened.namelist()] == entries


def test_an_archive_without_entries_is_valid():
    with zipfile.ZipFile(BytesIO(archive([], 1))) as opened:
        assert opened.namelist() == []


def test_an_archive_may_have_more_entries_than_the_old_format_can_count():
    names = [str(number) for number in range(2**16 + 3)]
    with zipfile.ZipFile(BytesIO(archive([(name, b"") for name in names], len(names)))) as opened:
        assert opened.namelist() == names


def test_an_entry_may_begin_beyond_four_gigabytes(tmp_path: Path):
    offset = 2**32 + 5
    directory, entry = ZipDirectory(offset), zip_entry("late.png", b"late")
    directory.add(entry)
    with (tmp_path / "sparse.zip").open("wb") as file:
        file.seek(offset)  # a hole, which takes no space
        file.write(entry + directory.end())
    with zipfile.ZipFile(tmp_path / "sparse.zip") as opened:
        assert opened.read("late.png") == b"late"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("7", "7"),
        ("T-shirt/top", "T-shirt%2Ftop"),
        ("../..", "%2E.%2F.."),
        (".hidden", "%2Ehidden"),
        ("Ankle boot", "Ankle boot"),
    ],
)
def test_the_folder_of_a_class_is_one_folder_below(name, folder):
    assert folder_name(name) == folder
