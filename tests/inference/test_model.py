"""Loading models: what an archive must do before it serves, and in which precision it serves."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.checkpoints.store import CheckpointError
from app.inference.model import load_model, load_models
from app.inference.runtime import Runtime, id_of
from tests.conftest import ROOT, SHIPPED_NAMES
from tests.tiny_models import SmallVae, archive_of, described, edited, write_checkpoints, write_vae


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("cpu")


def test_shipped_checkpoints_load_in_order_of_name_with_cards_and_byte_identical_rows(runtime):
    models = load_models(ROOT / "models", runtime, 8, threads=2)
    assert list(models) == SHIPPED_NAMES
    for name, model in models.items():
        assert set(model.networks) == set(model.manifest.capabilities)
        assert model.card is not None
        assert model.card.startswith(f"# {name}")
        assert all(model.byte_identical.values())


def test_checkpoints_of_every_kind_load_and_their_rows_are_byte_identical(runtime, tmp_path):
    write_checkpoints(tmp_path)
    models = load_models(tmp_path, runtime, 8)
    assert len(models) == 12
    for model in models.values():
        assert set(model.networks) == set(model.manifest.capabilities)
        assert all(model.byte_identical.values())


class WithoutEncoder(torch.nn.Module):
    """Lacks a method that the manifest names."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return latents

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        return latents


class OtherValues(SmallVae):
    """Has the right shapes."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return 1 - self.decode(latents)


class NotANumber(SmallVae):
    """Has the right shapes."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents) * float("nan")


class OtherShape(SmallVae):
    """Generates larger images."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents).repeat(1, 1, 2, 2)


class LosesARow(SmallVae):
    """Generates one image too few."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents)[1:]


class FailsInLargeBatches(SmallVae):
    """Decodes as many rows as the golden ones, as if memory ran out with more."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        if latents.shape[0] > 4:
            raise RuntimeError("out of memory")
        return self.decode(latents)


class Raises(SmallVae):
    """Cannot encode."""

    @torch.jit.export
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.view(-1, 3), images


def replace_archive(folder: Path, content: bytes) -> None:
    """Another archive with the right digest, as a faulty export would leave it."""
    (folder / "vae.pt").write_bytes(content)
    with edited(folder) as manifest:
        manifest["archives"]["float32"] = described("vae.pt", content)


def refusal(folder: Path, runtime: Runtime) -> str:
    """The one line that a start would log."""
    with pytest.raises(CheckpointError) as caught:
        load_models(folder.parent, runtime, 8)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"not an archive",
        *map(archive_of, (WithoutEncoder(), OtherValues(), NotANumber(), OtherShape(), LosesARow(), Raises())),
        archive_of(FailsInLargeBatches()),
    ],
    ids=["bytes", "no method", "other values", "not a number", "other shape", "loses a row", "raises", "large batch"],
)
def test_an_archive_that_does_not_do_what_its_manifest_says_is_refused_in_one_line_that_names_it(
    runtime, tmp_path, content
):
    folder = write_vae(tmp_path)
    replace_archive(folder, content)
    assert refusal(folder, runtime).startswith(f"{folder / 'vae.pt'}: ")


def test_the_first_of_several_bad_checkpoints_is_reported_by_any_number_of_threads(runtime, tmp_path):
    for name in ("a", "b", "c"):
        write_vae(tmp_path, name)
    for name in ("b", "c"):
        (tmp_path / name / "manifest.json").write_text("{")
    for threads in (1, 3):
        with pytest.raises(CheckpointError, match="/b/"):
            load_models(tmp_path, runtime, 8, threads=threads)


def test_golden_rows_with_fewer_values_than_they_state_are_refused(runtime, tmp_path):
    folder = write_vae(tmp_path)
    with edited(folder) as manifest:
        manifest["golden"]["encode"]["inputs"][0]["data"] = "AAAA"
    assert refusal(folder, runtime).startswith(f"{folder / 'vae.pt'}: ")


@pytest.fixture
def precise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with archives of two precisions, on a processor with bfloat16: its folder."""
    monkeypatch.setattr("app.inference.machine.cpuinfo", lambda: {"flags": "amx_bf16"})
    folder = write_vae(tmp_path)
    set_bfloat16(folder, SmallVae())
    return folder


class LowPrecision(SmallVae):
    """Images further from float32 than bfloat16 may be."""

    @torch.jit.export
    def generate(self, latents: Tensor) -> Tensor:
        return self.decode(latents) + 0.01


def set_bfloat16(folder: Path, module: torch.nn.Module) -> None:
    content = archive_of(module)
    (folder / "low.pt").write_bytes(content)
    with edited(folder) as manifest:
        manifest["archives"]["bfloat16"] = described("low.pt", content, images=8, largest=0.001, mean=0.0001)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_archive_of_the_requested_precision_serves_and_answers_name_it(precise, precision):
    runtime = Runtime("cpu", precision)
    model = load_model(precise / "manifest.json", runtime, 8)
    assert model.provenance.precision == precision
    assert model.provenance.digest == model.manifest.archives[precision].digest
    assert model.provenance.runtime == id_of(runtime.facts(precision, 8))


def test_a_model_without_a_bfloat16_archive_serves_in_float32(tmp_path):
    model = load_model(write_vae(tmp_path) / "manifest.json", Runtime("cpu", "bfloat16"), 8)
    assert model.provenance.precision == "float32"


def test_an_inaccurate_bfloat16_archive_gives_way_to_float32_unless_it_was_requested(precise):
    set_bfloat16(precise, LowPrecision())
    assert load_model(precise / "manifest.json", Runtime("cpu"), 8).provenance.precision == "float32"
    assert "low.pt" in refusal(precise, Runtime("cpu", "bfloat16"))


def test_a_bfloat16_archive_whose_rows_depend_on_their_batch_gives_way_to_float32_unless_requested(
    precise, monkeypatch
):
    results = iter([False, False, False, True, True, True] + 3 * [False])
    monkeypatch.setattr("app.inference.model.warm_up", lambda *_, **__: next(results))
    model = load_model(precise / "manifest.json", Runtime("cpu"), 8)
    assert model.provenance.precision == "float32"
    assert all(model.byte_identical.values())
    model = load_model(precise / "manifest.json", Runtime("cpu", "bfloat16"), 8)
    assert model.provenance.precision == "bfloat16"
    assert not any(model.byte_identical.values())


def test_a_bfloat16_archive_without_numbers_is_refused_and_float32_does_not_replace_it(precise):
    set_bfloat16(precise, NotANumber())
    assert "low.pt" in refusal(precise, Runtime("cpu"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_archive_that_does_not_serve_is_verified_as_well(precise, precision):
    other = precise / ("low.pt" if precision == "float32" else "vae.pt")
    other.write_bytes(other.read_bytes()[:-1] + b"-")
    assert refusal(precise, Runtime("cpu", precision)).startswith(f"{other}: ")
