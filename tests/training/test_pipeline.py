"""The whole way of every family, tiny: train, export, serve."""

import pytest

from app.checkpoints.store import read_manifest
from tests.api.reading import problem_of
from tests.conftest import ROOT, SHIPPED_NAMES, serving
from training.families import families
from training.trainer import train

VARIANTS = [("lapgan", {"size": 14}), ("lapgan", {"size": 7}), ("srgan", {"factor": 2})]
# The form field of an upload, and the capabilities of which the operation needs one.
UPLOADS = {
    "/reconstruct": ("file", {"encode", "embed"}),
    "/score": ("files", {"discriminate"}),
    "/classify": ("files", {"classify"}),
    "/upscale": ("files", {"upscale"}),
}
FACTS = ("capabilities", "conditional", "image", "latent_dim", "priors", "sampling", "sequential", "smooth_latents")


@pytest.mark.parametrize(("family", "options"), [*((name, {}) for name in families()), *VARIANTS], ids=str)
def test_a_trained_model_is_of_the_kind_of_the_shipped_one_and_served_with_byte_identical_rows(
    tiny, dataset, digit, family, options
):
    config = tiny(family, epochs=1, **options)
    train(config, dataset=dataset)
    manifest = read_manifest(config.models_dir / config.name / "manifest.json")
    assert manifest.family == family
    if config.name in SHIPPED_NAMES:
        shipped = read_manifest(ROOT / "models" / config.name / "manifest.json")
        for fact in FACTS:
            assert getattr(manifest, fact) == getattr(shipped, fact), fact
        assert manifest.upload_form.shape == shipped.upload_form.shape
    with serving(models_dir=config.models_dir, precision="float32") as client:
        guarantees = client.get(f"/models/{config.name}").json()["guarantees"]
        assert guarantees.keys() == set(manifest.capabilities)
        assert all(each["byte_identical"] for each in guarantees.values())
        answers = [client.post("/generate", json={"n": n, "seed": 7}) for n in (2, 3)]
        if "generate" in manifest.capabilities:
            two, three = (answer.json()["images"] for answer in answers)
            assert two == three[:2]
        else:
            problem_of(answers[0], 422, "capability_missing")
        for path, (field, capabilities) in UPLOADS.items():
            able = not capabilities.isdisjoint(manifest.capabilities)
            params = {"label": "3"} if able and manifest.conditional else {}
            answer = client.post(path, params=params, files={field: digit})
            if able:
                assert answer.status_code == 200, answer.text
            else:
                problem_of(answer, 422, "capability_missing")
