"""What images are made of, at the edges that requests do not reach."""

from pathlib import Path

import numpy as np
import pytest

from app.checkpoints.manifest import Manifest
from app.errors import InvalidRequest
from app.inference.latents import COMPONENT_STREAM, MAX_SEED, normal_rows
from app.inference.sampling import Choices, class_names, class_numbers, draw
from tests.tiny_models import LATENT_DIM, ConditionalVae, write, write_checkpoints


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    directory = tmp_path_factory.mktemp("labelled")
    write_checkpoints(directory)
    write(directory, "many", ConditionalVae(300), tuple(f"kind {number}" for number in range(300)))
    return {path.parent.name: manifest_of(path) for path in directory.glob("*/manifest.json")}


def manifest_of(path: Path) -> Manifest:
    return Manifest.model_validate_json(path.read_bytes())


def test_noise_of_a_fitted_prior_is_that_of_the_normal_one_and_a_column_that_no_control_reaches(manifests):
    choices = Choices(label="3", temperature=0.5)
    drawn = draw(manifests["fitted"], choices, seed=7, first=3, count=4)
    assert drawn.noise.shape == (4, LATENT_DIM + 1)
    assert np.array_equal(drawn.noise[:, :-1], normal_rows(7, 3, 4, LATENT_DIM, temperature=0.5))
    assert np.array_equal(drawn.noise[:, -1:], normal_rows(7, 3, 4, 1, stream=COMPONENT_STREAM))
    plain = draw(manifests["fitted"], Choices(prior="normal"), seed=7, first=3, count=4)
    assert np.array_equal(plain.noise, normal_rows(7, 3, 4, LATENT_DIM))
    assert plain.labels is None


def test_classes_in_turn_reach_the_last_index_there_is(manifests):
    drawn = draw(manifests["cgan"], Choices(label="balanced"), seed=7, first=MAX_SEED, count=1)
    assert drawn.labels is not None
    assert drawn.labels.tolist() == [MAX_SEED % 10]


def test_a_model_of_hundreds_of_classes_has_each_of_them_and_a_refusal_lists_some(manifests):
    many = manifests["many"]
    drawn = draw(many, Choices(label="balanced"), seed=7, first=290, count=20)
    assert drawn.labels is not None
    assert class_names(many, drawn.labels)[8:12] == ["kind 298", "kind 299", "kind 0", "kind 1"]
    assert class_numbers(many, ["kind 299"]).tolist() == [299]
    unlabelled = draw(many, Choices(), seed=7, first=0, count=3000).labels
    assert unlabelled is not None
    assert set(unlabelled.tolist()) == set(range(300))
    with pytest.raises(InvalidRequest) as caught:
        class_numbers(many, ["kind 300"])
    assert caught.value.detail.endswith("kind 18, kind 19 and more: /models/many lists all")
    assert "300" not in caught.value.detail


def test_every_choice_draws_rows_that_do_not_depend_on_how_many_are_drawn(manifests):
    for name, choices in (
        ("fitted", Choices()),
        ("fitted", Choices(label=["3", "8", "1"], temperature=0.7)),
        ("cgan", Choices(label="balanced", truncation=1.5)),
        ("boots", Choices(temperature=0.7, truncation=1.5)),
    ):
        whole = draw(manifests[name], choices, seed=7, first=0, count=50)
        part = draw(manifests[name], choices, seed=7, first=31, count=6)
        assert whole.labels is not None
        assert part.labels is not None
        assert np.array_equal(part.noise, whole.noise[31:37])
        assert np.array_equal(part.labels, whole.labels[31:37])
