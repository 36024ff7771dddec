"""Atomic writes: whole or not at all."""

import errno
import os
import resource
import stat

import pytest

from training.files import write_atomically


def test_a_new_file_holds_the_content_and_missing_directories_are_made(tmp_path):
    path = tmp_path / "deep" / "down" / "file.bin"
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"


def test_an_old_file_is_replaced(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"a longer old content")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_no_temporary_file_is_left_beside_it(tmp_path):
    write_atomically(tmp_path / "file.bin", b"content")
    assert os.listdir(tmp_path) == ["file.bin"]


def test_another_user_can_read_the_file(tmp_path):
    # The service in its container runs as another user than the training did.
    write_atomically(tmp_path / "file.bin", b"content")
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == 0o644


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_call_returns(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        events.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        if events[-1] == "content":
            assert os.fstat(descriptor).st_size == len(b"content"), "flushed to the system first"
        fsync(descriptor)

    def watched_replace(source, target):
        assert os.path.dirname(source) == os.path.dirname(target), "a rename is atomic within one directory"
        events.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_atomically(tmp_path / "file.bin", b"content")
    assert events == ["content", "name", "directory"]


def test_a_full_disk_is_an_oserror_that_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_atomically(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_stop_before_the_rename_leaves_the_old_file_alone(tmp_path, monkeypatch, failure):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def stop(source, target):
        raise failure

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(type(failure)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]
