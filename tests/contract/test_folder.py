"""A folder of pictures, learned by training and served beside the digits: both sides see the same pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.images.decode import decode_image
from app.images.encode import to_uint8
from app.images.normalize import fit
from tests.api.reading import image
from tests.conftest import ROOT, serving
from training import export
from training.families import families, gan
from training.folder import load_folder, read_row
from training.trainer import train

SHADES = np.random.default_rng(3).integers(0, 256, (37, 23, 4), dtype=np.uint8)


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(SHADES[..., :3]), "JPEG", exif=exif)


PICTURES = {
    "grey": saved(Image.fromarray(SHADES[..., 0])),
    "colour": saved(Image.fromarray(SHADES[..., :3])),
    "alpha": saved(Image.fromarray(SHADES)),
    "grey with alpha": saved(Image.fromarray(SHADES[..., :2])),
    "palette": saved(Image.fromarray(SHADES[..., :3]).quantize(16)),
    "transparent colour": saved(Image.fromarray(SHADES[..., 0] // 64 * 64), transparency=64),
    "one bit": saved(Image.fromarray(SHADES[..., 0]).convert("1")),
    "16 bits": saved(Image.fromarray((SHADES[..., 0].astype(np.uint16) << 8) + SHADES[..., 1])),
    "CMYK": saved(Image.fromarray(SHADES[..., :3]).convert("CMYK"), "JPEG"),
    "small": saved(Image.fromarray(SHADES[:5, :3, :3])),
    "large": saved(Image.fromarray(np.kron(SHADES[..., 0], np.ones((9, 9), np.uint8)))),
} | {f"turned {number}": turned(number) for number in range(1, 9)}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_learned_as_the_service_would_see_it(kind):
    content = PICTURES[kind]
    served = to_uint8(fit(decode_image(content), size=28))[0]
    assert np.array_equal(read_row(content), served)


@pytest.mark.parametrize("family", families())
def test_a_model_of_a_folder_is_served_beside_the_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family):
    monkeypatch.setattr(export, "DEVIATION_IMAGES", 64)
    monkeypatch.setattr(gan, "STATISTICS_BATCHES", 1)
    source = np.random.default_rng(1)
    for name in ("stripes across", "stripes down"):
        (tmp_path / "stripes" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.zeros((40, 60), np.uint8)
            pixels[source.integers(4) :: 4] = 255
            picture = Image.fromarray(pixels if name.endswith("across") else pixels.T)
            picture.save(tmp_path / "stripes" / name / f"{number}.png")
    models = tmp_path / "models"
    models.mkdir()
    (models / "vae").symlink_to(ROOT / "models" / "vae")
    options = {"epochs": 1, "batch_size": 8, "device": "cpu", "precision": "float32", "tensorboard": False}
    config = families()[family].config(
        dataset=f"folder:{tmp_path / 'stripes'}", runs_dir=tmp_path / "runs", models_dir=models, **options
    )
    assert config.name == f"{family}-stripes"
    train(config)
    with serving(models_dir=models) as client:
        names = [model["name"] for model in client.get("/models").json()["models"]]
        assert names == sorted(["vae", config.name])
        manifest = client.get(f"/models/{config.name}").json()
        assert load_folder(tmp_path / "stripes").digest in str(manifest)
        body: dict[str, object] = {"model": config.name, "n": 4, "seed": 1}
        if family != "gan":
            body["label"] = "stripes down"
        answer = client.post("/generate", json=body, headers={"Accept": "image/png"})
        assert answer.status_code == 200, answer.text
        assert image(answer.content).shape == (56, 56)
        if "vae" in family:
            # What the model sees of an upload is what training saw of such a file: resized, and nothing else.
            path = tmp_path / "stripes" / "stripes down" / "3.png"
            asked = {"model": config.name} | ({"label": "stripes down"} if family == "cvae" else {})
            seen = client.post(
                "/reconstruct",
                params=asked,
                files={"file": path.read_bytes()},
                headers={"Accept": "application/x-npz"},
            )
            assert seen.status_code == 200, seen.text
            with np.load(io.BytesIO(seen.content)) as arrays:
                assert np.array_equal(arrays["input"].reshape(28, 28), read_row(path.read_bytes()))
