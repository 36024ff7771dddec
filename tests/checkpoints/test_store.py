"""Shipped checkpoints load; every way to damage one stops the start with a line that names the file."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.checkpoints.manifest import TensorRecord, with_checksum
from app.checkpoints.store import CheckpointError, load_model, load_models, read_manifest
from app.inference.runtime import Runtime, id_of
from tests.conftest import ROOT
from tests.tiny_models import write_checkpoints


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the shipped VAE to be damaged, its fitted prior left out: its directory."""
    directory = Path(shutil.copytree(ROOT / "models" / "vae", tmp_path / "vae"))

    def edit(manifest: dict[str, Any]) -> None:
        manifest["capabilities"].remove("prior")
        del manifest["golden"]["prior"]
        manifest |= {"priors": ["normal"], "noise_dim": manifest["latent_dim"]}

    change(directory, edit)
    return directory


def manifest_of(checkpoint: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((checkpoint / "manifest.json").read_text())
    return content


def change(checkpoint: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = manifest_of(checkpoint)
    edit(manifest)
    (checkpoint / "manifest.json").write_text(json.dumps(with_checksum(manifest)))


def archive_of(checkpoint: Path) -> Path:
    (path,) = checkpoint.glob("*.pt")
    return path


def replace_archive(checkpoint: Path, module: torch.nn.Module) -> None:
    """Another archive under the right digest, as a faulty export would leave it."""
    entry = write_archive(archive_of(checkpoint), module)
    change(checkpoint, lambda manifest: manifest["archives"]["float32"].update(entry))


def write_archive(path: Path, module: torch.nn.Module) -> dict[str, Any]:
    """What a manifest says of it."""
    torch.jit.script(module).save(str(path))
    content = path.read_bytes()
    return {"file": path.name, "digest": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def failure(checkpoint: Path, runtime: Runtime) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_models(checkpoint.parent, runtime, 8)
    text = str(caught.value)
    assert "\n" not in text
    assert str(checkpoint.parent) in text
    return text


def test_the_shipped_checkpoints_load_in_order_of_name(runtime):
    models = load_models(ROOT / "models", runtime, 8)
    assert list(models) == sorted(models)
    assert {"gan", "vae"} <= set(models)
    assert set(models["vae"].networks) == {"generate", "decode", "encode", "prior"}
    assert set(models["gan"].networks) == {"generate", "discriminate"}
    assert all(model.card and model.card.startswith(f"# {name}") for name, model in models.items())


def test_a_missing_directory_is_named(runtime, tmp_path):
    assert "is not a directory" in failure(tmp_path / "absent" / "vae", runtime)


def test_a_directory_without_checkpoints_says_how_to_make_one(runtime, tmp_path):
    assert "python -m training train vae" in failure(tmp_path / "vae", runtime)


def test_a_missing_manifest_is_named(runtime, checkpoint):
    (checkpoint / "manifest.json").unlink()
    assert "vae/manifest.json: is missing" in failure(checkpoint, runtime)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "vae"}', b"\xff\xfe"])
def test_a_manifest_that_is_none_is_named(runtime, checkpoint, content):
    (checkpoint / "manifest.json").write_bytes(content)
    assert "vae/manifest.json: " in failure(checkpoint, runtime)


def test_no_bit_of_a_manifest_can_flip_and_change_what_is_loaded(checkpoint):
    path = checkpoint / "manifest.json"
    content, sound = path.read_bytes(), read_manifest(path)
    chosen = random.Random(0)
    refused = 0
    for _ in range(400):
        flipped = bytearray(content)
        flipped[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        try:
            assert read_manifest(path) == sound
        except CheckpointError:
            refused += 1
    assert refused > 350  # the others changed the space between fields, or the last digit of more than a float holds


def test_a_manifest_that_was_changed_says_what_to_do_about_its_checksum(runtime, checkpoint):
    path = checkpoint / "manifest.json"
    changed = path.read_text().replace('"box": 20', '"box": 22')
    path.write_text(changed)
    assert "vae/manifest.json: its checksum is of other content" in failure(checkpoint, runtime)
    fields = json.loads(changed)
    del fields["checksum"]
    path.write_text(json.dumps(fields))
    normalization = load_model(path, runtime, 8).manifest.image.normalization
    assert normalization is not None
    assert normalization.box == 22


def test_a_checksum_does_not_depend_on_how_a_manifest_is_laid_out(checkpoint):
    path = checkpoint / "manifest.json"
    sound = read_manifest(path)
    path.write_text(json.dumps(dict(sorted(manifest_of(checkpoint).items(), reverse=True))))
    assert read_manifest(path) == sound


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", 2),
        ("format", "pickle"),
        ("name", "../vae"),
        ("latent_dim", 0),
        ("capabilities", ["generate", "fly"]),
        ("capabilities", ["generate"]),
        ("surprise", 1),
        ("archives", {}),
        ("image", {"shape": [1, 28, 29], "normalization": None}),
    ],
)
def test_a_manifest_with_a_bad_field_is_refused(runtime, checkpoint, field, value):
    change(checkpoint, lambda manifest: manifest.update({field: value}))
    assert "vae/manifest.json: " in failure(checkpoint, runtime)


def test_a_manifest_cannot_name_an_archive_elsewhere(runtime, checkpoint):
    outside = shutil.copy(archive_of(checkpoint), checkpoint.parent / "outside.pt")
    assert Path(outside).is_file()
    change(checkpoint, lambda manifest: manifest["archives"]["float32"].update(file="../outside.pt"))
    assert "archives.float32.file" in failure(checkpoint, runtime)


def test_a_folder_of_another_name_is_refused(runtime, checkpoint):
    moved = checkpoint.rename(checkpoint.parent / "other")
    assert "names the model vae, its folder says other" in failure(moved, runtime)


def test_a_missing_archive_is_named(runtime, checkpoint):
    path = archive_of(checkpoint)
    path.unlink()
    assert f"{path}: No such file" in failure(checkpoint, runtime)


def test_a_truncated_archive_is_refused(runtime, checkpoint):
    path = archive_of(checkpoint)
    path.write_bytes(path.read_bytes()[:-100])
    assert "bytes, the manifest says" in failure(checkpoint, runtime)


@pytest.mark.parametrize("position", [0.001, 0.25, 0.5, 0.75, 0.999])
def test_one_flipped_bit_is_found(runtime, checkpoint, position):
    path = archive_of(checkpoint)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0b100
    path.write_bytes(content)
    assert "has SHA-256" in failure(checkpoint, runtime)


def test_an_archive_that_is_no_torchscript_is_refused(runtime, checkpoint):
    path = archive_of(checkpoint)
    content = b"no archive at all"
    path.write_bytes(content)
    entry = {"digest": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    change(checkpoint, lambda manifest: manifest["archives"]["float32"].update(entry))
    assert "is no TorchScript archive" in failure(checkpoint, runtime)


class WithoutEncoder(torch.nn.Module):
    @torch.jit.export
    def generate(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(latents[:, :1, None, None].expand(-1, 1, 28, 28))

    @torch.jit.export
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.generate(latents)


class Wrong(WithoutEncoder):
    """The right shapes, other values."""

    @torch.jit.export
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = images.flatten(1)[:, :16]
        return rows, rows


class NotANumber(Wrong):
    @torch.jit.export
    def generate(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.full((latents.shape[0], 1, 28, 28), float("nan"))


class NotANumberGan(NotANumber):
    @torch.jit.export
    def discriminate(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))


class WrongShape(Wrong):
    @torch.jit.export
    def generate(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(latents.shape[0], 1, 32, 32)


class LosesARow(Wrong):
    @torch.jit.export
    def generate(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(latents.shape[0] - 1, 1, 28, 28)


@pytest.mark.parametrize(
    ("module", "cause"),
    [
        (WithoutEncoder(), "lacks the capability encode"),
        (Wrong(), "generate differs by"),
        (NotANumber(), "values that are not finite"),
        (WrongShape(), "gives other shapes"),
        (LosesARow(), "a wrong number of rows"),
    ],
)
def test_an_archive_that_computes_something_else_is_refused(runtime, checkpoint, module, cause):
    replace_archive(checkpoint, module)
    text = failure(checkpoint, runtime)
    assert str(archive_of(checkpoint)) in text
    assert cause in text


@pytest.fixture
def precise(tmp_path: Path) -> Path:
    """A copy of the shipped GAN, which has archives of two precisions: its directory."""
    return Path(shutil.copytree(ROOT / "models" / "gan", tmp_path / "gan"))


def test_the_archive_of_the_precision_that_is_asked_for_serves(precise):
    for precision in ("float32", "bfloat16"):
        model = load_model(precise / "manifest.json", Runtime("cpu", precision), 8)
        assert model.precision == precision
        assert model.digest == manifest_of(precise)["archives"][precision]["digest"]
        assert model.runtime_id == id_of(Runtime("cpu").facts(precision, 8))
        assert all(model.identical.values())


def test_a_model_that_does_not_ship_bfloat16_serves_in_float32(checkpoint):
    assert load_model(checkpoint / "manifest.json", Runtime("cpu", "bfloat16"), 8).precision == "float32"


def exchange_images(precise: Path) -> None:
    """Golden images of the four rows in another order: every pixel of the digits is far off."""

    def edit(manifest: dict[str, Any]) -> None:
        record = manifest["golden"]["generate"]["outputs"][0]
        wrong = TensorRecord(**record).array()[::-1]
        record["data"] = TensorRecord.of(wrong).data

    change(precise, edit)


def test_an_archive_beyond_the_bound_is_refused_and_where_it_was_chosen_for_the_caller_float32_serves(
    precise, monkeypatch, caplog
):
    monkeypatch.setattr("app.inference.machine.cpuinfo", lambda: {"flags": "avx512_bf16"})
    monkeypatch.setattr("app.checkpoints.checks.PIXEL_BOUND", 1e-6)
    assert load_model(precise / "manifest.json", Runtime("cpu"), 8).precision == "float32"
    assert "float32 serves instead" in caplog.text
    assert "generate differs by" in failure(precise, Runtime("cpu", "bfloat16"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("harm", [lambda path: path.unlink(), flip_a_bit], ids=["missing", "a bit flipped"])
def test_an_archive_that_does_not_serve_is_verified_too(precise, precision, harm):
    path = precise / manifest_of(precise)["archives"]["bfloat16" if precision == "float32" else "float32"]["file"]
    harm(path)
    assert str(path) in failure(precise, Runtime("cpu", precision))


def test_an_archive_that_computes_no_numbers_is_refused_whatever_else_could_serve(precise, monkeypatch):
    monkeypatch.setattr("app.inference.machine.cpuinfo", lambda: {"flags": "avx512_bf16"})

    entry = write_archive(precise / "gan-wrong.pt", NotANumberGan())
    change(precise, lambda manifest: manifest["archives"]["bfloat16"].update(entry))
    assert "values that are not finite" in failure(precise, Runtime("cpu"))


def test_where_rows_depend_on_their_batch_in_bfloat16_float32_serves(precise, monkeypatch, caplog):
    monkeypatch.setattr("app.inference.machine.cpuinfo", lambda: {"flags": "avx512_bf16"})
    monkeypatch.setattr("app.checkpoints.store.warm_up", lambda network, *_: network.row_multiple > 1)
    model = load_model(precise / "manifest.json", Runtime("cpu"), 8)
    assert model.precision == "float32"
    assert "a row depends on its batch; float32 serves instead" in caplog.text
    assert load_model(precise / "manifest.json", Runtime("cpu", "bfloat16"), 8).precision == "bfloat16"


def test_an_archive_that_fails_in_every_precision_stops_the_start(precise, monkeypatch):
    monkeypatch.setattr("app.inference.machine.cpuinfo", lambda: {"flags": "avx512_bf16"})
    exchange_images(precise)
    assert "generate differs by" in failure(precise, Runtime("cpu"))


def test_every_archive_but_that_of_float32_says_how_far_it_is_from_it(runtime, precise):
    change(precise, lambda manifest: manifest["archives"]["bfloat16"].update(deviation=None))
    assert "need a deviation" in failure(precise, runtime)


def test_an_archive_that_admits_to_be_beyond_the_bound_is_refused(runtime, precise):
    change(precise, lambda manifest: manifest["archives"]["bfloat16"]["deviation"].update(largest=2.1 / 255))
    assert "archives.bfloat16.deviation.largest" in failure(precise, runtime)


def set_golden(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        for record in (*manifest["golden"]["encode"]["inputs"], *manifest["golden"]["encode"]["outputs"]):
            record[field] = value

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        set_golden("shape", []),
        set_golden("shape", [0, 1, 28, 28]),
        set_golden("shape", [4, 784]),
        lambda manifest: manifest.update(latent_dim=17),
        lambda manifest: manifest["image"].update(shape=[1, 14, 14]),
        lambda manifest: manifest["golden"]["generate"].update(tolerance=1e308),
    ],
)
def test_golden_rows_that_do_not_fit_the_rest_of_the_manifest_are_refused(runtime, checkpoint, edit):
    change(checkpoint, edit)
    assert "vae/manifest.json: " in failure(checkpoint, runtime)


def test_golden_rows_that_hold_another_number_of_values_than_they_say_are_refused(runtime, checkpoint):
    change(checkpoint, set_golden("data", "AAAA"))
    assert "encode fails on its golden rows" in failure(checkpoint, runtime)


def test_a_card_that_is_no_text_is_named(runtime, checkpoint):
    (checkpoint / "card.md").write_bytes(b"\xff\xfe")
    assert "vae/card.md: cannot be read" in failure(checkpoint, runtime)


def test_a_checkpoint_without_a_card_loads(runtime, checkpoint):
    (checkpoint / "card.md").unlink()
    assert load_model(checkpoint / "manifest.json", runtime, 8).card is None


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_a_recorded_tensor_comes_back_exactly(dtype):
    array = np.linspace(-1000, 1000, 24).astype(dtype).reshape(2, 3, 4)
    again = TensorRecord.of(array).array()
    assert again.dtype == dtype
    assert np.array_equal(again, array)


def test_a_manifest_from_before_there_were_labels_loads(runtime, checkpoint):
    def edit(manifest: dict[str, Any]) -> None:
        for field in ("conditional", "priors", "noise_dim", "sampling"):
            del manifest[field]
        for golden in manifest["golden"].values():
            for record in (*golden["inputs"], *golden["outputs"]):
                del record["dtype"]

    change(checkpoint, edit)
    manifest = load_model(checkpoint / "manifest.json", runtime, 8).manifest
    assert (manifest.conditional, manifest.sampling) == (False, ())


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A directory of checkpoints that take labels."""
    write_checkpoints(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [
        ("cgan", {"generate", "discriminate"}),
        ("cvae", {"generate", "decode", "encode"}),
        ("boots", {"generate", "decode", "encode"}),
        ("fitted", {"generate", "decode", "encode", "prior"}),
        ("mixed", {"generate", "decode", "encode", "prior"}),
    ],
)
def test_checkpoints_that_take_labels_load_and_their_rows_do_not_depend_on_their_batch(
    runtime, labelled, name, capabilities
):
    model = load_models(labelled, runtime, 8)[name]
    assert set(model.networks) == capabilities
    assert all(model.identical.values())


@pytest.mark.parametrize(
    ("name", "field", "value", "cause"),
    [
        ("cgan", "conditional", False, "golden rows of generate"),
        ("fitted", "conditional", True, "golden rows of generate"),
        ("cgan", "classes", [], "needs classes"),
        ("fitted", "classes", [], "needs classes"),
        ("cgan", "classes", ["cat", "cat"], "different names"),
        ("cgan", "classes", ["cat", "balanced"], "different names"),
        ("cgan", "classes", ["cat,dog"], "none of which is a comma"),
        ("cgan", "classes", ["cat\n"], "none of which is a comma"),
        ("cgan", "classes", [""], "1 to 64 characters"),
        ("fitted", "priors", ["normal"], "goes with the fitted one"),
        ("fitted", "priors", ["normal", "normal"], "goes with the fitted one"),
        ("fitted", "priors", [], "priors"),
        ("cgan", "priors", ["fitted", "normal"], "goes with the fitted one"),
        ("fitted", "noise_dim", 6, "golden rows of prior"),
        ("cgan", "noise_dim", 7, "noise_dim"),
        ("cgan", "sampling", ["luck"], "sampling.0"),
    ],
)
def test_a_manifest_whose_labels_do_not_fit_together_is_refused(runtime, labelled, name, field, value, cause):
    change(labelled / name, lambda manifest: manifest.update({field: value}))
    text = failure(labelled / name, runtime)
    assert f"{name}/manifest.json: " in text
    assert cause in text


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_golden_rows_and_labels_of_another_type_are_refused(runtime, labelled, dtype):
    def edit(manifest: dict[str, Any]) -> None:
        for record in manifest["golden"]["generate"]["inputs"]:
            record["dtype"] = dtype

    change(labelled / "cgan", edit)
    assert "float32, and their labels int64" in failure(labelled / "cgan", runtime)


def test_an_archive_that_takes_other_labels_is_refused(runtime, labelled):
    def edit(manifest: dict[str, Any]) -> None:
        record = manifest["golden"]["generate"]["inputs"][1]
        record["data"] = TensorRecord.of(np.array([3, 2, 1, 0])).data

    change(labelled / "cgan", edit)
    assert "generate differs by" in failure(labelled / "cgan", runtime)
