"""Checkpoint files: every kind of damage is one line that names the file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from app.checkpoints.pictures import read_history, read_pictures
from app.checkpoints.store import CheckpointError, find_manifests, read_archive, read_card, read_manifest
from tests.tiny_models import write_vae


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    """A sound checkpoint: its folder."""
    return write_vae(tmp_path / "models")


def read(models: Path) -> None:
    """Read every file of every checkpoint, as loading does."""
    for path in find_manifests(models):
        for archive in read_manifest(path).archives.values():
            content = read_archive(path.parent / archive.file, archive)
            assert hashlib.sha256(content).hexdigest() == archive.digest
        read_card(path.parent / "card.md")
        read_pictures(path.parent)
        read_history(path.parent)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_folder_that_cannot_be_read_is_an_error_of_one_line(tmp_path):
    with pytest.raises(CheckpointError) as error:
        find_manifests(tmp_path / ("x" * 300))  # no test can take rights from root
    assert len(str(error.value).splitlines()) == 1


def test_sound_checkpoints_are_read_and_hidden_folders_and_files_are_skipped(vae):
    (vae.parent / ".cache").mkdir()
    (vae.parent / "README.md").write_text("digits")
    (vae / "card.md").unlink()
    read(vae.parent)
    assert read_card(vae / "card.md") is None


def test_only_the_checkpoints_that_are_named_are_read(vae):
    other = write_vae(vae.parent, "other")
    (vae / "manifest.json").unlink()  # a fault that does not matter
    assert find_manifests(vae.parent, ["other"]) == [other / "manifest.json"]


def test_a_name_without_a_folder_is_one_line_with_the_names_that_there_are(vae):
    write_vae(vae.parent, "other")
    with pytest.raises(CheckpointError) as caught:
        find_manifests(vae.parent, ["vae", "veil"])
    text = str(caught.value)
    assert text.startswith(f"{vae.parent}: ")
    assert "veil" in text
    assert "other, vae" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda vae: vae.parent.rename(vae.parent.with_name("elsewhere")), "models"),
        (lambda vae: vae.rename(vae.parent.parent / "vae"), "models"),
        (lambda vae: (vae / "manifest.json").unlink(), "models/vae/manifest.json"),
        *(
            (lambda vae, content=content: (vae / "manifest.json").write_bytes(content), "models/vae/manifest.json")
            for content in (b"", b"{", b"[]", b'{"name": "vae"}', b"\xff\xfe")
        ),
        (lambda vae: vae.rename(vae.with_name("other")), "models/other/manifest.json"),
        (lambda vae: (vae / "vae.pt").unlink(), "models/vae/vae.pt"),
        (lambda vae: (vae / "vae.pt").write_bytes((vae / "vae.pt").read_bytes()[:-1]), "models/vae/vae.pt"),
        (lambda vae: flip_a_bit(vae / "vae.pt"), "models/vae/vae.pt"),
        (lambda vae: (vae / "card.md").write_bytes(b"\xff\xfe"), "models/vae/card.md"),
        (lambda vae: (vae / "film.png").write_bytes(b"GIF89a"), "models/vae/film.png"),
        (lambda vae: (vae / "curves.png").write_bytes(bytes(2**20 + 1)), "models/vae/curves.png"),
        *(
            (lambda vae, content=content: (vae / "history.json").write_text(content), "models/vae/history.json")
            for content in (
                "",
                "{}",
                '{"epochs": [{"epoch": 2}], "exported": 1}',
                '{"epochs": [{"epoch": 1, "loss": NaN}], "exported": 1}',
                '{"epochs": [{"epoch": 1}], "exported": 2}',
                '{"epochs": [{"epoch": 1}], "exported": 1, "film": [0]}',
            )
        ),
    ],
)
def test_damage_is_reported_in_one_line_that_names_the_file(vae: Path, damage: Callable[[Path], object], named: str):
    damage(vae)
    with pytest.raises(CheckpointError) as caught:
        read(vae.parent)
    text = str(caught.value)
    assert text.startswith(f"{vae.parent.parent / named}: ")
    assert "\n" not in text
