import errno
import os
import stat

import pytest

from app.checkpoints.files import write_atomically
from tests.conftest import largest_file


def test_a_file_is_written_with_missing_directories_and_is_readable_by_other_users(tmp_path):
    path = tmp_path / "deep" / "down" / "file.bin"
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"
    # The service's container runs as another user.
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["file.bin"]


def test_content_rename_and_directory_are_synced_to_disk_in_order(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        events.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        if events[-1] == "content":
            assert os.fstat(descriptor).st_size == len(b"content")
        fsync(descriptor)

    def watched_replace(source, target):
        assert os.path.dirname(source) == os.path.dirname(target)
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_atomically(tmp_path / "file.bin", b"content")
    assert events == ["content", "rename", "directory"]


def test_a_full_disk_raises_an_oserror_that_names_the_file_and_keeps_it(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with largest_file(100_000), pytest.raises(OSError, match=path.name) as caught:
        write_atomically(path, bytes(200_000))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]
