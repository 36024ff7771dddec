"""The model card agrees with its manifest, and its commands repeat the run."""

import shlex

import pytest

from app.checkpoints.manifest import ControlEffect, Figure, ImageForm, Manifest, Quality
from tests.training.conftest import manifest_of
from training.__main__ import parser
from training.card import card, commands, epochs_text, training_command
from training.evaluation.eval_protocol import PROTOCOL
from training.families import families
from training.quality_report import quality_table, quality_text

FIGURES = {
    "frechet_distance": Figure(
        value=12.3456,
        deviation=0.4567,
        unit="squared",
        better="lower",
        floor=0.7,
        floor_deviation=0.03,
        ceilings={"noise": 600.0},
    ),
    "importance_weighted_bound": Figure(value=86.7612, standard_error=0.8123, unit="nats", better="lower"),
}


@pytest.fixture
def manifest(vae_run) -> Manifest:
    return manifest_of(vae_run)


def measured(manifest: Manifest, **changes: object) -> Manifest:
    quality = Quality(
        protocol=PROTOCOL,
        extractor="e" * 64,
        images=10_000,
        seeds=(0, 1, 2),
        figures=FIGURES,
        control_images=5_000,
        controls=(
            ControlEffect(prior="normal", temperature=0.5, truncation=None, figures={"precision": 0.8125}),
            ControlEffect(prior="normal", temperature=1, truncation=2.0, figures={"precision": 0.75}),
        ),
    )
    return manifest.model_copy(update={"quality": quality.model_copy(update=changes)})


def cells(text: str, first: str) -> list[str]:
    """The cells of the only table row that starts with a word."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first} ")]
    assert len(lines) == 1, text
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_a_card_has_the_figures_controls_pictures_and_digests_of_the_manifest(manifest):
    text = card(measured(manifest), ("samples.png",))
    assert cells(text, "frechet distance") == [
        "frechet distance",
        "12.35 ± 0.46",
        "0.7 ± 0.03",
        "noise 600",
        "lower",
        "squared",
    ]
    assert cells(text, "importance weighted bound")[1] == "86.76 (standard error 0.81)"
    for part in ("encode 424,480", "generate and decode 108,993", "192 images", "3 epochs, seed 5", "beta 1.0"):
        assert part in text
    for archive in manifest.archives.values():
        assert archive.digest in text
    for part in (manifest.dataset.digest, PROTOCOL, "e" * 64, "seeds 0, 1, 2", "10,000 images"):
        assert part in text
    assert cells(text, "normal prior, temperature 0.5")[1:] == ["0.8125"]
    assert cells(text, "normal prior, temperature 1, truncation 2")[1:] == ["0.75"]
    assert "](samples.png)" in text
    assert "neighbours.png" not in text


@pytest.mark.parametrize("family", families())
def test_the_command_in_the_card_trains_with_the_same_choices(manifest, family):
    choices = {"epochs": 3, "seed": 7, "ema_decay": 0.5, "train_images": 11}
    if "batch_norm" in families()[family].config.model_fields:
        choices["batch_norm"] = False
    config = families()[family].config.model_validate(choices)
    record = manifest.training.model_copy(update={"config": config.model_dump(mode="json")})
    program, *words = shlex.split(training_command(family, record))
    assert [program, *words[:2]] == [".venv/bin/python", "-m", "training"]
    arguments = vars(parser().parse_args(words[2:]))
    assert (arguments.pop("action"), arguments.pop("family")) == ("train", family)
    for name in ("resume", "restart"):
        arguments.pop(name, None)
    assert arguments.keys() >= choices.keys() | {"batch_size"}  # defaults may change
    assert families()[family].config.model_validate(arguments) == config


def recorded(manifest: Manifest, **changes: object) -> Manifest:
    """The manifest with another training record; `config` is added to the one that is there."""
    record = manifest.training
    if "config" in changes:
        changes["config"] = record.config | dict(changes["config"])  # type: ignore[call-overload]
    return manifest.model_copy(update={"training": record.model_copy(update=changes)})


def test_the_commands_of_a_card_check_out_the_source_and_measure_with_the_same_seeds(manifest):
    lines = commands(recorded(measured(manifest, seeds=(0, 1, 2, 3)), source_commit=f"{'a' * 40}-dirty", processes=4))
    assert lines[0].startswith(f"git checkout {'a' * 40} ")
    assert lines[1].startswith(".venv/bin/torchrun --standalone --nproc-per-node 4 -m training train vae --")
    assert lines[2] == ".venv/bin/python -m training evaluate vae --seeds 4"
    assert commands(recorded(manifest, source_commit="unknown"))[0].startswith("#")


@pytest.mark.parametrize("extractor", [None, "e" * 64])
def test_the_commands_of_a_card_name_other_data_and_train_its_classifier_first(manifest, extractor):
    data = "folder:my pictures"
    _, *lines = commands(recorded(measured(manifest, extractor=extractor), config={"dataset": data}))
    parsed = [vars(parser().parse_args(shlex.split(line)[3:])) for line in lines]
    actions = ["train", "evaluate"] if extractor is None else ["classifier", "train", "evaluate"]
    assert [(arguments["action"], arguments["dataset"]) for arguments in parsed] == [(name, data) for name in actions]


def test_the_cpu_time_and_the_note_of_a_run_are_on_the_card_and_the_note_not_in_the_command(manifest):
    config = manifest.training.config | {"note": "A run with twice the rate diverged."}
    manifest = recorded(manifest, config=config, cpu_minutes=12.4)
    text = card(manifest)
    assert "\n- 12 CPU minutes\n- A run with twice the rate diverged.\n" in text
    assert text.count("diverged") == 1


def test_the_card_of_a_stopped_run_says_which_epoch_was_exported(manifest):
    stopped = recorded(manifest, config={"epochs": 9}, steps=17)
    assert "stopped after 3 of 9 epochs and 17 steps" in epochs_text(stopped.training)
    assert any(line.startswith("#") and "stopped after 3 of 9" in line for line in commands(stopped))
    assert "epoch 2" in epochs_text(recorded(manifest, epoch=2).training)
    assert epochs_text(manifest.training) == "3 epochs"


def test_the_card_says_when_the_contrast_was_changed(manifest):
    assert "contrast" not in card(manifest)
    assert "by 1.25" in card(recorded(manifest, contrast=1.25))


def test_the_card_says_whose_labels_the_floor_has(manifest):
    assert "balanced labels" in quality_text(measured(manifest))
    plain = manifest.model_copy(update={"priors": ("normal",)})
    assert "natural" in quality_text(measured(plain))


def test_the_card_says_that_a_likelihood_is_given_the_label(manifest):
    assert "2.3 nats" in quality_text(measured(manifest.model_copy(update={"conditional": True})))
    assert "2.3 nats" not in quality_text(measured(manifest))
    generator = manifest.model_copy(update={"conditional": True, "capabilities": ("generate",)})
    assert "2.3 nats" not in quality_text(measured(generator))


def test_the_card_says_why_figures_of_a_classifier_are_left_out(manifest):
    small = manifest.model_copy(update={"image": ImageForm(shape=(1, 7, 7), normalization=None)})
    assert "7x7" in quality_text(measured(small, extractor=None))
    assert "7x7" in quality_text(measured(small, extractor=None, protocol="strokes-eval-2"))
    assert "no classifier of this data" in quality_text(measured(manifest, extractor=None, protocol="strokes-eval-2"))
    classifier = manifest.model_copy(update={"capabilities": ("classify",)})
    assert "left out" not in quality_text(measured(classifier, extractor=None))


def test_the_table_of_several_models_has_the_floors_of_both_kinds_of_labels(manifest):
    def model(name: str, floor: float, **changes: object) -> Manifest:
        figures = FIGURES | {"frechet_distance": FIGURES["frechet_distance"].model_copy(update={"floor": floor})}
        return measured(manifest.model_copy(update={"name": name, **changes}), figures=figures)

    text = quality_table([model("labelled", 1.1), model("plain", 0.7, priors=("normal",))])
    assert cells(text, "better")[1:] == ["lower"]
    assert cells(text, "`labelled`")[1:] == ["12.35 ± 0.46"]
    assert cells(text, "real images, balanced labels")[1:] == ["1.1 ± 0.03"]
    assert cells(text, "real images, natural labels")[1:] == ["0.7 ± 0.03"]
    assert cells(text, "noise")[1:] == ["600"]
    others = [line for line in text.splitlines() if line.startswith("| importance weighted bound ")]
    assert [line.split("|")[2].strip() for line in others] == ["`labelled`", "`plain`"]


def test_the_table_of_several_models_has_a_row_of_the_normal_prior_beside_the_fitted_one(manifest):
    normal = FIGURES["frechet_distance"].model_copy(update={"value": 72.8, "deviation": None})
    text = quality_table([measured(manifest, figures=FIGURES | {"normal_prior_frechet_distance": normal})])
    assert cells(text, "`vae`")[1:] == ["12.35 ± 0.46"]
    assert cells(text, "`vae`, N(0, I)")[1:] == ["72.8"]
