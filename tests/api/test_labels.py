"""Images of the class that was asked for, and scores and reconstructions that know it."""

import base64

import numpy as np
import pytest

from app.inference.latents import normal_rows, uniform_labels
from app.inference.runtime import Rows
from tests.api.reading import arrays, image, pixels_of, problem_of
from tests.conftest import FIXTURES
from tests.labelled import COMPONENTS, DIGITS, GARMENTS, LATENT_DIM

NPZ = {"Accept": "application/x-npz"}
LABELLED = ["cgan", "cvae", "fitted", "mixed"]


def labels_of(answer):
    assert answer.status_code == 200, answer.text
    return [item["label"] for item in answer.json()["images"]]


def generate(client, **body):
    return client.post("/generate", json=body)


@pytest.mark.parametrize("model", LABELLED)
def test_every_image_of_a_class_carries_its_name(labelled, model):
    for label in ("3", 3):
        assert labels_of(generate(labelled, model=model, n=3, seed=1, label=label)) == ["3", "3", "3"]


@pytest.mark.parametrize("model", LABELLED)
def test_the_label_makes_another_image_of_the_same_seed(labelled, model):
    images = [pixels_of(generate(labelled, model=model, seed=1, label=name))[0] for name in DIGITS]
    assert len({pixels.tobytes() for pixels in images}) == 10


@pytest.mark.parametrize("model", LABELLED)
@pytest.mark.parametrize(
    ("label", "expected"), [(["8", 3], ["8", "3", "8", "3", "8"]), ("balanced", ["0", "1", "2", "3", "4"])]
)
def test_classes_are_taken_in_turn_by_index(labelled, model, label, expected):
    whole = generate(labelled, model=model, n=13, seed=1, label=label)
    assert labels_of(whole)[:5] == expected
    for first, n in ((1, 1), (4, 3), (9, 4)):
        part = generate(labelled, model=model, n=n, first=first, seed=1, label=label)
        assert part.json()["images"] == whole.json()["images"][first : first + n]


def test_ten_of_each_digit_are_a_hundred_balanced_images(labelled):
    labels = labels_of(generate(labelled, model="fitted", n=100, seed=8, label="balanced"))
    assert {name: labels.count(name) for name in DIGITS} == dict.fromkeys(DIGITS, 10)


@pytest.mark.parametrize("model", LABELLED)
def test_without_a_label_one_is_drawn_from_seed_and_index(labelled, model):
    whole = generate(labelled, model=model, n=40, seed=7)
    labels = labels_of(whole)
    assert labels == [DIGITS[label] for label in uniform_labels(7, 0, 40, 10)]
    assert generate(labelled, model=model, n=5, first=30, seed=7).json()["images"] == whole.json()["images"][30:35]
    asked = generate(labelled, model=model, n=40, seed=7, label=labels)
    assert asked.json()["images"] == whole.json()["images"], "a label that was drawn can also be asked for"


def test_arrays_hold_labels_as_numbers_of_classes(labelled):
    body = {"model": "boots", "n": 4, "seed": 1, "label": ["Bag", "Ankle boot"]}
    loaded = arrays(labelled.post("/generate", json=body, headers=NPZ).content)
    assert loaded["labels"].dtype == np.int64
    assert [GARMENTS[label] for label in loaded["labels"]] == ["Bag", "Ankle boot", "Bag", "Ankle boot"]
    assert "labels" not in arrays(labelled.post("/generate", json={"model": "gan"}, headers=NPZ).content)


def test_a_grid_shows_the_images_that_were_asked_for(labelled):
    body = {"model": "cgan", "n": 4, "seed": 1, "label": "balanced"}
    grid = image(labelled.post("/generate", json=body, headers={"Accept": "image/png"}).content)
    single = pixels_of(labelled.post("/generate", json=body))
    assert np.array_equal(grid[28:, 28:], single[3])


def test_images_of_a_model_without_labels_have_none(labelled):
    body = generate(labelled, model="gan", n=2, seed=1).json()
    assert [item["label"] for item in body["images"]] == [None, None]
    assert body["prior"] == "normal"


def test_a_class_is_asked_for_by_name_and_never_by_number(labelled):
    assert labels_of(generate(labelled, model="boots", label="T-shirt/top")) == ["T-shirt/top"]
    body = problem_of(generate(labelled, model="boots", label=1), 422, "invalid_request")
    assert body["detail"] == "model boots has the classes Ankle boot, T-shirt/top, Bag"


def test_a_label_picks_a_model_that_has_labels(labelled):
    assert generate(labelled, label="balanced").json()["model"] == "boots"
    assert generate(labelled, label=["3", "4"]).json()["model"] == "cgan", "the first that has these classes"
    body = problem_of(generate(labelled, label="tree"), 422, "invalid_request")
    assert body["detail"] == "model boots has the classes Ankle boot, T-shirt/top, Bag"
    body = problem_of(generate(labelled, model="gan", label="3"), 422, "capability_missing")
    assert body["detail"] == "model gan cannot generate by label; boots can"


def test_without_a_model_that_has_labels_the_refusal_says_so(client):
    if not any(m["conditional"] or "fitted" in m["priors"] for m in client.get("/models").json()["models"]):
        body = problem_of(generate(client, label="3"), 422, "capability_missing")
        assert body["detail"] == "no loaded model can generate by label"


@pytest.mark.parametrize(
    "body",
    [
        {"label": ""},
        {"label": []},
        {"label": ["3", "ten"]},
        {"label": ["balanced"]},
        {"label": "ten"},
        {"label": 10},
        {"label": -1},
        {"label": True},
        {"label": 3.0},
        {"label": [["3"]]},
        {"label": {"name": "3"}},
        {"label": "3" * 65},
        {"label": "3,4"},
        {"prior": "fitted"},
        {"prior": "uniform"},
        {"truncation": "2"},
        {"truncation": 0},
        {"truncation": 11},
        {"truncation": True},
        {"temperature": 1},
        {"temperature": 0, "model": "cvae"},
        {"temperature": 2.1, "model": "cvae"},
        {"truncation": 1, "model": "cvae"},
        {"prior": "normal", "label": "3", "model": "fitted"},
        {"latents": [[0.0] * LATENT_DIM]},
        {"latents": [[0.0] * LATENT_DIM], "label": "3", "prior": "normal"},
        {"latents": [[0.0] * LATENT_DIM], "label": "3", "truncation": 1},
        {"latents": [[0.0] * LATENT_DIM], "label": "3", "model": "fitted"},
        {"latents": [[0.0] * (LATENT_DIM + 1)], "model": "fitted"},
    ],
)
def test_a_bad_choice_is_refused(labelled, body):
    problem_of(generate(labelled, **{"model": "cgan", **body}), 422, "invalid_request")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"model": "cgan", "temperature": 1}, "model cgan takes truncation"),
        ({"model": "fitted", "truncation": 1}, "model fitted takes temperature"),
        ({"model": "gan", "prior": "fitted"}, "model gan has the prior normal only"),
        (
            {"model": "fitted", "prior": "normal", "label": "3"},
            "model fitted has no labels with the prior normal, only with fitted",
        ),
    ],
)
def test_a_refusal_says_what_the_model_takes(labelled, body, detail):
    assert problem_of(generate(labelled, **body), 422, "invalid_request")["detail"] == detail


@pytest.mark.parametrize(("model", "control"), [("cgan", "truncation"), ("cvae", "temperature"), ("boots", "both")])
def test_controls_shrink_the_noise_of_the_same_seed(labelled, model, control):
    body = {"model": model, "n": 8, "seed": 5, "label": "balanced"}
    controls = {"temperature": 0.5, "truncation": 1.5}
    asked = controls if control == "both" else {control: controls[control]}
    plain, controlled = (
        arrays(labelled.post("/generate", json=body | more, headers=NPZ).content) for more in ({}, asked)
    )
    assert np.array_equal(plain["latents"], normal_rows(5, 0, 8, LATENT_DIM))
    assert np.array_equal(controlled["latents"], normal_rows(5, 0, 8, LATENT_DIM, **asked))
    assert (np.abs(controlled["latents"]) < np.abs(plain["latents"])).all()
    assert (np.sign(controlled["latents"]) == np.sign(plain["latents"])).all()
    assert not np.array_equal(controlled["images"], plain["images"])


def test_a_fitted_prior_is_the_default_and_the_normal_one_a_choice(labelled):
    body = {"model": "fitted", "n": 8, "seed": 5}
    fitted, normal = (
        labelled.post("/generate", json=body | more, headers=NPZ).content for more in ({}, {"prior": "normal"})
    )
    assert np.array_equal(arrays(normal)["latents"], normal_rows(5, 0, 8, LATENT_DIM))
    assert "labels" not in arrays(normal)
    assert not np.array_equal(arrays(fitted)["latents"], arrays(normal)["latents"])
    assert generate(labelled, **body).json()["prior"] == "fitted"
    given = generate(labelled, model="fitted", latents=arrays(fitted)["latents"].tolist())
    assert np.array_equal(pixels_of(given), arrays(fitted)["images"]), "its latents make its images"
    assert given.json()["prior"] is None
    assert labels_of(given) == [None] * 8


def test_temperature_reaches_the_noise_of_a_fitted_prior_but_not_its_component(labelled):
    """At temperature near 0 all images of a class and component are one: there are only so many."""
    body = {"model": "fitted", "n": 250, "seed": 5, "label": "balanced", "temperature": 1e-6}
    loaded = arrays(labelled.post("/generate", json=body, headers=NPZ).content)
    for label in range(10):
        places: list[Rows] = []
        for row in loaded["latents"][loaded["labels"] == label]:
            if not any(np.allclose(row, place, atol=1e-4) for place in places):
                places.append(row)
        assert 1 < len(places) <= COMPONENTS


def test_a_conditional_model_with_a_fitted_prior_decodes_the_latents_of_a_class_as_that_class(labelled):
    body = {"model": "mixed", "n": 4, "seed": 5, "label": ["3", "8"]}
    fitted, normal = (
        arrays(labelled.post("/generate", json=body | more, headers=NPZ).content) for more in ({}, {"prior": "normal"})
    )
    assert fitted["labels"].tolist() == normal["labels"].tolist() == [3, 8, 3, 8]
    assert not np.array_equal(fitted["latents"], normal["latents"])
    given = {"model": "mixed", "latents": fitted["latents"].tolist(), "label": ["3", "8"]}
    assert np.array_equal(pixels_of(labelled.post("/generate", json=given)), fitted["images"])


def test_given_latents_take_labels_in_turn(labelled):
    latents = normal_rows(7, 0, 3, LATENT_DIM).tolist()
    given = generate(labelled, model="cvae", latents=latents, label=["4", "5"])
    assert labels_of(given) == ["4", "5", "4"]
    seeded = generate(labelled, model="cvae", n=3, seed=7, label=["4", "5"])
    assert given.json()["images"] == seeded.json()["images"]


def test_a_conditional_model_reconstructs_an_image_as_one_of_its_label(labelled, digit):
    made = {}
    for label in ("7", "8"):
        answer = labelled.post("/reconstruct", params={"model": "cvae", "label": label}, files={"file": digit})
        assert answer.status_code == 200, answer.text
        assert answer.json()["label"] == label
        made[label] = (answer.json()["latent"], answer.json()["reconstruction"])
    assert made["7"] != made["8"]


def test_an_upload_without_its_label_goes_to_a_model_that_knows_none(labelled, digit):
    answer = labelled.post("/reconstruct", files={"file": digit})
    assert (answer.json()["model"], answer.json()["label"]) == ("fitted", None)
    assert labelled.post("/reconstruct", params={"label": "7"}, files={"file": digit}).json()["model"] == "cvae"
    body = problem_of(
        labelled.post("/reconstruct", params={"model": "cvae"}, files={"file": digit}), 422, "capability_missing"
    )
    assert body["detail"] == "model cvae cannot decode and encode without a label; fitted can"
    body = problem_of(
        labelled.post("/reconstruct", params={"model": "fitted", "label": "7"}, files={"file": digit}),
        422,
        "capability_missing",
    )
    assert body["detail"] == "model fitted cannot decode and encode by label; boots can"


DIGIT_FILES = [("files", (FIXTURES / "mnist" / f"{name}.png").read_bytes()) for name in (3, 4)]


def test_uploads_are_scored_as_their_labels(labelled):
    def score(label):
        answer = labelled.post("/score", params={"model": "cgan", "label": label}, files=DIGIT_FILES)
        assert answer.status_code == 200, answer.text
        return answer.json()["scores"]

    both, swapped, one = score("3,4"), score("4,3"), score("3")
    assert [item["label"] for item in both] == ["3", "4"]
    assert [item["label"] for item in one] == ["3", "3"]
    assert both[0] == one[0]
    assert both[1] != one[1]
    assert all(a["logit"] != b["logit"] for a, b in zip(both, swapped, strict=True))


def test_uploads_without_labels_go_to_a_discriminator_that_knows_none(labelled):
    answer = labelled.post("/score", files=DIGIT_FILES)
    assert answer.json()["model"] == "gan"
    assert [item["label"] for item in answer.json()["scores"]] == [None, None]
    body = problem_of(labelled.post("/score", params={"model": "cgan"}, files=DIGIT_FILES), 422, "capability_missing")
    assert body["detail"] == "model cgan cannot discriminate without a label; gan can"
    for label in ("3,4,5", "3,", "ten"):
        problem_of(
            labelled.post("/score", params={"model": "cgan", "label": label}, files=DIGIT_FILES), 422, "invalid_request"
        )


@pytest.mark.parametrize("label", [None, "3", ["3", "4"], "balanced"])
def test_generated_images_are_scored_as_the_labels_they_were_made_of(labelled, label):
    body = {"model": "cgan", "n": 4, "seed": 3, "first": 1} | ({} if label is None else {"label": label})
    seeded = labelled.post("/score", json=body).json()
    made = labelled.post("/generate", json=body).json()["images"]
    assert [item["label"] for item in seeded["scores"]] == [item["label"] for item in made]
    files = [("files", base64.b64decode(item["png"])) for item in made]
    params = {"model": "cgan", "normalize": False, "label": ",".join(item["label"] for item in made)}
    uploaded = labelled.post("/score", files=files, params=params).json()["scores"]
    assert [item["logit"] for item in uploaded] == [item["logit"] for item in seeded["scores"]]
    loaded = arrays(labelled.post("/score", json=body, headers=NPZ).content)
    assert [DIGITS[number] for number in loaded["labels"]] == [item["label"] for item in made]


def test_scoring_takes_the_same_choices_as_generating(labelled):
    choices = {"truncation": 0.5, "label": "3"}
    body = {"model": "cgan", "n": 2, "seed": 3}
    assert labelled.post("/score", json=body | choices).json() != labelled.post("/score", json=body).json()
    problem_of(labelled.post("/score", json=body | {"temperature": 1}), 422, "invalid_request")


def test_images_without_labels_need_one_to_be_scored_by_a_conditional_model(labelled):
    body = {"model": "cgan", "generator": "gan", "n": 2, "seed": 3}
    refusal = problem_of(labelled.post("/score", json=body), 422, "invalid_request")
    assert refusal["detail"] == "model cgan needs labels and images of gan have none: give label"
    scores = labelled.post("/score", json=body | {"label": ["3", "4"]}).json()["scores"]
    assert [item["label"] for item in scores] == ["3", "4"]
    assert labelled.post("/score", json=body | {"label": "3"}).json()["scores"][0] == scores[0]
    normal = body | {"generator": "fitted", "prior": "normal"}
    problem_of(labelled.post("/score", json=normal), 422, "invalid_request")
    assert labelled.post("/score", json=normal | {"label": "3"}).json()["scores"][0]["label"] == "3"


def test_images_of_other_classes_cannot_be_scored(labelled):
    refusal = problem_of(labelled.post("/score", json={"model": "cgan", "generator": "boots"}), 422, "invalid_request")
    assert refusal["detail"] == "models boots and cgan have different classes"


def test_a_scorer_without_labels_scores_images_of_a_class(labelled):
    body = labelled.post("/score", json={"model": "gan", "generator": "fitted", "n": 2, "label": "3"}).json()
    assert [item["label"] for item in body["scores"]] == ["3", "3"]
    own = labelled.post("/score", json={"model": "gan", "label": "Bag"}).json()
    assert (own["generator"], own["scores"][0]["label"]) == ("boots", "Bag")
    problem_of(
        labelled.post("/score", json={"model": "gan", "generator": "gan", "label": "3"}), 422, "capability_missing"
    )


def test_models_say_what_can_be_asked_of_them(labelled):
    listed = {model["name"]: model for model in labelled.get("/models").json()["models"]}
    assert {name: model["conditional"] for name, model in listed.items()} == {
        "boots": True, "cgan": True, "cvae": True, "fitted": False, "gan": False, "mixed": True,
    }  # fmt: skip
    assert listed["fitted"]["priors"] == ["fitted", "normal"]
    assert listed["gan"]["priors"] == ["normal"]
    assert listed["gan"]["sampling"] == ["truncation"]
    assert listed["boots"]["classes"] == list(GARMENTS)
    manifest = labelled.get("/models/fitted").json()["manifest"]
    assert (manifest["priors"], manifest["noise_dim"]) == (["fitted", "normal"], LATENT_DIM + 1)


def test_labels_add_no_series(labelled):
    def series():
        return {line.split(" ")[0] for line in labelled.get("/metrics").text.splitlines() if "cvae" in line}

    generate(labelled, model="cvae", label="0")
    before = series()
    for name in DIGITS[1:]:
        generate(labelled, model="cvae", label=name)
    generate(labelled, model="cvae", label="no class at all")
    assert series() == before


@pytest.mark.parametrize("model", ["cvae", "boots"])
def test_an_upload_has_one_class_of_the_model(labelled, digit, model):
    for label in ("balanced", "ten", "", "7,7"):
        answer = labelled.post("/reconstruct", params={"model": model, "label": label}, files={"file": digit})
        problem_of(answer, 422, "invalid_request")
        walk = labelled.post("/interpolate", params={"model": model, "label": label}, files=DIGIT_FILES)
        problem_of(walk, 422, "invalid_request")


@pytest.mark.parametrize("label", [{"name": "3"}, ["3", None], True, 3.0, ["balanced"], [], "3" * 65, -1])
def test_a_label_of_no_known_form_is_one_fault_in_words(labelled, label):
    body = problem_of(generate(labelled, model="cgan", label=label), 422, "invalid_request")
    (fault,) = body["errors"]
    assert fault["location"] == ["body", "label"]
    assert fault["message"].endswith("a label is the name of a class, a list of 1 to 4096 of them, or balanced")
