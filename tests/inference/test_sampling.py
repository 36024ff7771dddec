"""Sources of latents and labels, and what models draw and generate from them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from app.errors import InvalidRequest
from app.inference.latents import COMPONENT_STREAM, MAX_SEED, normal_rows
from app.inference.model import Model, load_models
from app.inference.runtime import Runtime
from app.inference.sampling import SamplingOptions, class_indices, draw, generate, given, seeded, seeded_noise, split
from tests.tiny_models import LATENT_DIM, ConditionalVae, write, write_checkpoints, write_vae


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Model]:
    """Models with labels of every kind, `many` with 300 classes, and `vae` without labels."""
    directory: Path = tmp_path_factory.mktemp("models")
    write_checkpoints(directory)
    write(directory, "many", ConditionalVae(300), tuple(f"kind {number}" for number in range(300)))
    write_vae(directory)
    return load_models(directory, Runtime("cpu"), 8)


def labels_of(model: Model, options: SamplingOptions, first: int, count: int) -> list[int]:
    """The labels of these rows of seed 7."""
    labels = seeded(model.manifest, options, 7).labels(first, count)
    assert labels is not None
    return [*map(int, labels)]


def test_a_fitted_prior_has_a_noise_column_that_no_control_changes(models):
    source = seeded(models["fitted"].manifest, SamplingOptions(label="3", temperature=0.5), seed=7)
    noise = seeded_noise([(source, 3, 4)])
    assert np.array_equal(noise[:, :-1], normal_rows(7, 3, 4, LATENT_DIM, temperature=0.5))
    assert np.array_equal(noise[:, -1:], normal_rows(7, 3, 4, 1, stream=COMPONENT_STREAM))
    plain = seeded(models["fitted"].manifest, SamplingOptions(prior="normal"), seed=7)
    assert np.array_equal(seeded_noise([(plain, 3, 4)]), normal_rows(7, 3, 4, LATENT_DIM))
    assert plain.labels(3, 4) is None


def test_requested_classes_are_taken_in_turn_up_to_the_last_index(models):
    assert labels_of(models["cgan"], SamplingOptions(label="balanced"), MAX_SEED, 1) == [MAX_SEED % 10]
    assert labels_of(models["cgan"], SamplingOptions(label=["3", "8"]), 3, 4) == [8, 3, 8, 3]


def test_labels_that_are_not_requested_are_drawn_from_all_classes(models):
    assert set(labels_of(models["many"], SamplingOptions(), 0, 3000)) == set(range(300))


def test_an_unknown_class_is_refused_with_some_of_the_classes_and_without_an_echo(models):
    with pytest.raises(InvalidRequest) as caught:
        class_indices(models["many"].manifest, ["kind 300"])
    assert "kind 19" in caught.value.detail
    assert "kind 20" not in caught.value.detail
    assert "kind 300" not in caught.value.detail


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fitted", SamplingOptions()),
        ("fitted", SamplingOptions(label=["3", "8", "1"], temperature=0.7)),
        ("fitted", SamplingOptions(prior="normal")),
        ("mixed", SamplingOptions(label="balanced")),
        ("cgan", SamplingOptions(label="balanced", truncation=1.5)),
        ("boots", SamplingOptions(temperature=0.7, truncation=1.5)),
    ],
)
def test_rows_of_a_slice_are_those_of_the_whole_in_any_batch_composition(models, name, options):
    model = models[name]
    sources = [seeded(model.manifest, options, seed) for seed in (7, 8)]
    if name == "fitted":
        sources.append(seeded(model.manifest, SamplingOptions(prior="normal"), 9))
    whole = [draw(model, [(source, 0, 50)])[0] for source in sources]
    images = [generate(model, [each]) for each in whole]
    cases = [(i, first, count) for first, count in ((31, 6), (0, 1), (49, 1)) for i in range(len(sources))]
    together = draw(model, [(sources[i], first, count) for i, first, count in cases])
    parts = split(generate(model, together), [count for _, _, count in cases])
    for (i, first, count), (latents, labels), made in zip(cases, together, parts, strict=True):
        rows = slice(first, first + count)
        assert np.array_equal(latents, whole[i][0][rows])
        assert np.array_equal(made, images[i][rows])
        whole_labels = whole[i][1]
        assert (labels is None) == (whole_labels is None)
        assert labels is None or whole_labels is None or np.array_equal(labels, whole_labels[rows])


def test_latents_of_the_caller_are_generated_as_they_are(models):
    latents = normal_rows(1, 0, 3, LATENT_DIM)
    source = given(models["cvae"].manifest, latents.tolist(), ["3", "8"])
    ((drawn, labels),) = draw(models["cvae"], [(source, 0, 3)])
    assert np.array_equal(drawn, latents)
    assert labels is not None
    assert labels.tolist() == [3, 8, 3]
