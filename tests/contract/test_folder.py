"""A folder of images, learned by training and served: both sides see the same pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.images.decode import decode_image
from app.images.encode import to_uint8
from app.images.normalization import fit
from tests.api.reading import arrays, image
from tests.conftest import serving
from tests.corpus.files import orientation, saved
from training import export
from training.families import families
from training.folder import load_folder, read_row
from training.trainer import train

PIXELS = np.random.default_rng(3).integers(0, 256, (37, 23, 4), dtype=np.uint8)
GREY, COLOUR = Image.fromarray(PIXELS[..., 0]), Image.fromarray(PIXELS[..., :3])


FILES = {
    "grey": saved(GREY, "PNG"),
    "colour": saved(COLOUR, "PNG"),
    "alpha": saved(Image.fromarray(PIXELS), "PNG"),
    "grey with alpha": saved(Image.fromarray(PIXELS[..., :2]), "PNG"),
    "palette": saved(COLOUR.quantize(16), "PNG"),
    "transparent colour": saved(Image.fromarray(PIXELS[..., 0] // 64 * 64), "PNG", transparency=64),
    "one bit": saved(GREY.convert("1"), "PNG"),
    "16 bits": saved(Image.fromarray((PIXELS[..., 0].astype(np.uint16) << 8) + PIXELS[..., 1]), "PNG"),
    "CMYK": saved(COLOUR.convert("CMYK"), "JPEG"),
    "small": saved(Image.fromarray(PIXELS[:5, :3, :3]), "PNG"),
    "large": saved(Image.fromarray(np.kron(PIXELS[..., 0], np.ones((9, 9), np.uint8))), "PNG"),
} | {f"orientation {number}": saved(COLOUR, "JPEG", exif=b"Exif\0\0" + orientation(number)) for number in range(1, 9)}


@pytest.mark.parametrize("kind", FILES)
def test_training_sees_an_image_file_as_the_service_does(kind):
    content = FILES[kind]
    assert np.array_equal(read_row(content), to_uint8(fit(decode_image(content), size=28))[0])


def test_a_model_of_a_folder_is_served_by_the_names_of_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "DEVIATION_IMAGES", 8)
    folder, models = tmp_path / "stripes", tmp_path / "models"
    phases = np.random.default_rng(1)
    for name in ("stripes across", "stripes down"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.zeros((40, 60), np.uint8)
            pixels[phases.integers(4) :: 4] = 255
            Image.fromarray(pixels if name == "stripes across" else pixels.T).save(folder / name / f"{number}.png")
    options: dict[str, Any] = {"epochs": 1, "batch_size": 8, "device": "cpu", "tensorboard": False}
    options |= {"dataset": f"folder:{folder}", "runs_dir": tmp_path / "runs", "models_dir": models}
    train(families()["cvae"].config(**options))
    asked = {"model": "cvae-stripes", "label": "stripes down"}
    with serving(models_dir=models) as client:
        manifest = client.get("/models/cvae-stripes").json()["manifest"]
        assert manifest["dataset"]["digest"] == load_folder(folder).digest
        assert manifest["classes"] == ["stripes across", "stripes down"]
        answer = client.post("/generate", json={"n": 4, "seed": 1} | asked, headers={"Accept": "image/png"})
        assert answer.status_code == 200, answer.text
        assert image(answer.content).shape == (56, 56)
        # An upload is resized, as training resized the file, and not normalized.
        upload = (folder / "stripes down" / "3.png").read_bytes()
        headers = {"Accept": "application/x-npz", "Content-Type": "image/png"}
        seen = client.post("/reconstruct", params=asked, content=upload, headers=headers)
        assert seen.status_code == 200, seen.text
        assert np.array_equal(arrays(seen.content)["input"].reshape(28, 28), read_row(upload))
