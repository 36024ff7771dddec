"""The card against the manifest that it is made from."""

import shlex

import pytest

from app.checkpoints.manifest import ControlEffect, Figure, Manifest, Quality
from training.__main__ import parser
from training.card import MEANING, card, commands, epochs_text, quality_table, training_command
from training.config import CONFIGS

FIGURES = {
    "frechet_distance": Figure(
        value=12.3456, deviation=0.4567, unit="squared", better="lower", floor=0.7, ceilings={"noise": 600.0}
    ),
    "importance_weighted_bound": Figure(value=86.7612, standard_error=0.8123, unit="nats", better="lower"),
}


@pytest.fixture
def manifest(vae_run) -> Manifest:
    return Manifest.model_validate_json((vae_run.models_dir / "vae" / "manifest.json").read_bytes())


def measured(manifest: Manifest, **changes: object) -> Manifest:
    quality = Quality(
        protocol="digits-eval-1",
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
    """The cells of the one line of a table that begins with a word."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first} ")]
    assert len(lines) == 1, text
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_the_card_says_what_the_manifest_says(manifest):
    text = card(measured(manifest))
    assert text.startswith("# vae\n")
    assert cells(text, "frechet distance") == [
        "frechet distance",
        "12.35 ± 0.46",
        "0.7",
        "noise 600",
        "lower",
        "squared",
    ]
    assert cells(text, "importance weighted bound")[1] == "86.76 (standard error 0.81)"
    for part in ("encoder 424,480", "decoder 108,993", "192 images", "3 epochs, seed 5", "beta 1.0"):
        assert part in text
    for archive in manifest.archives.values():
        assert archive.digest in text
    for part in (manifest.dataset.digest, "digits-eval-1", "e" * 64, "seeds 0, 1, 2", "10,000 images"):
        assert part in text


def test_the_card_shows_what_the_controls_do(manifest):
    text = card(measured(manifest))
    assert cells(text, "normal prior, temperature 0.5")[1:] == ["0.8125"]
    assert cells(text, "normal prior, temperature 1, truncation 2")[1:] == ["0.75"]
    assert "Sampling controls" not in card(measured(manifest, controls=()))


def test_a_card_shows_the_pictures_that_are_there(manifest):
    text = card(manifest, ("samples.png",))
    assert "](samples.png)" in text
    assert "neighbours.png" not in text


def test_a_card_without_figures_says_so(manifest):
    assert "Not measured yet." in card(manifest.model_copy(update={"quality": None}))


def test_a_card_without_a_classifier_says_what_is_left_out(manifest):
    assert "no classifier of this data" in card(measured(manifest, extractor=None))
    assert "no classifier of this data" not in card(measured(manifest))


def test_every_figure_of_the_shipped_kind_is_explained(manifest):
    quality = manifest.quality
    assert quality is not None
    assert set(quality.figures) <= set(MEANING)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_the_command_in_the_card_trains_with_the_same_choices(manifest, family):
    choices = {"epochs": 3, "seed": 7, "ema_decay": 0.5, "train_images": 11}
    if "batch_norm" in CONFIGS[family].model_fields:
        choices["batch_norm"] = False
    config = CONFIGS[family].model_validate(choices)
    record = manifest.training.model_copy(update={"config": config.model_dump(mode="json")})
    program, *words = shlex.split(training_command(family, record))
    assert [program, *words[:2]] == [".venv/bin/python", "-m", "training"]
    arguments = vars(parser().parse_args(words[2:]))
    assert (arguments.pop("action"), arguments.pop("family")) == ("train", family)
    for name in ("resume", "restart"):
        arguments.pop(name, None)
    assert arguments.keys() >= choices.keys() | {"batch_size"}, "defaults too: they may change"
    assert CONFIGS[family].model_validate(arguments) == config


def test_the_card_says_of_how_many_images_copies_were_looked_for(manifest):
    figures = {"near_copies": Figure(value=0.01, unit="fraction", better="floor")}
    for images, text in ((10_000, "2,000"), (90, "90")):
        assert f"near copies: share of {text} images nearer" in card(measured(manifest, figures=figures, images=images))


def recorded(manifest: Manifest, **changes: object) -> Manifest:
    """The manifest with another training record; `config` is added to the one that is there."""
    record = manifest.training
    if "config" in changes:
        changes["config"] = record.config | dict(changes["config"])  # type: ignore[call-overload]
    return manifest.model_copy(update={"training": record.model_copy(update=changes)})


def test_the_commands_in_the_card_take_the_source_and_measure_what_was_measured(manifest):
    digits = recorded(measured(manifest), source_commit="a" * 40)
    first, train, evaluate = commands(digits)
    assert first == f"git checkout {'a' * 40}"
    assert train == training_command("vae", digits.training)
    assert evaluate == ".venv/bin/python -m training evaluate vae"
    assert all(line in card(digits).splitlines() for line in (first, train, evaluate))
    more_seeds = recorded(measured(manifest, seeds=(0, 1, 2, 3)))
    assert commands(more_seeds)[-1] == ".venv/bin/python -m training evaluate vae --seeds 4"


def test_the_commands_in_the_card_say_where_the_source_is_not_all_known(manifest):
    changed = commands(recorded(manifest, source_commit=f"{'a' * 40}-dirty"))[0]
    assert changed == f"git checkout {'a' * 40}  # and changes to it that no commit holds"
    assert commands(recorded(manifest, source_commit="unknown"))[0].startswith("# ")


@pytest.mark.parametrize(
    ("epoch", "extractor", "actions"),
    [
        (2, "e" * 64, ["classifier", "train", "evaluate"]),  # it chose the epoch that ships
        (3, "e" * 64, ["train", "classifier", "evaluate"]),
        (3, None, ["train", "evaluate"]),
    ],
)
def test_the_commands_in_the_card_name_data_other_than_mnist_and_train_their_classifier(
    manifest, epoch, extractor, actions
):
    data = "folder:my pictures"
    other = recorded(measured(manifest, extractor=extractor), config={"dataset": data}, epoch=epoch)
    _, *lines = commands(other)
    parsed = [vars(parser().parse_args(shlex.split(line)[3:])) for line in lines]
    assert [(arguments["action"], arguments["dataset"]) for arguments in parsed] == [(name, data) for name in actions]


def test_the_command_of_several_processes_starts_as_many(manifest):
    command = training_command("vae", recorded(manifest, processes=4).training)
    assert command.startswith(".venv/bin/torchrun --standalone --nproc-per-node 4 -m training train vae --")


def test_the_card_of_a_run_that_was_stopped_says_so(manifest):
    stopped = recorded(manifest, config={"epochs": 9})
    assert epochs_text(stopped.training) == "stopped after 3 of 9 epochs"
    assert any(line.startswith("# stopped after 3 of 9 epochs") for line in commands(stopped))
    within = recorded(stopped, steps=17)
    assert epochs_text(within.training) == "stopped after 3 of 9 epochs and 17 steps of the next"
    assert "losses of the last whole epoch:" in card(within)
    chosen = recorded(stopped, epoch=2).training
    assert epochs_text(chosen) == (
        "stopped after 3 of 9 epochs, of which number 2, the best by Frechet distance, ships"
    )
    assert not any("stopped" in line for line in commands(manifest))


def test_the_table_of_models_has_a_line_a_figure_and_a_column_a_model(manifest):
    other = measured(manifest).model_copy(update={"name": "other"})
    assert other.quality is not None
    fewer = other.quality.model_copy(update={"figures": {"frechet_distance": FIGURES["frechet_distance"]}})
    text = quality_table([measured(manifest), other.model_copy(update={"quality": fewer})])
    assert cells(text, "figure") == ["figure", "better", "`vae`", "`other`", "floor", "ceilings"]
    assert cells(text, "frechet distance")[2:] == ["12.35 ± 0.46", "12.35 ± 0.46", "0.7", "noise 600"]
    assert cells(text, "importance weighted bound")[2:4] == ["86.76 (standard error 0.81)", ""]


def test_figures_of_different_units_have_a_row_each(manifest):
    other = {"frechet_distance": FIGURES["frechet_distance"].model_copy(update={"unit": "cubed", "value": 8.0})}
    second = measured(manifest, figures=other).model_copy(update={"name": "other"})
    text = quality_table([measured(manifest), second])
    assert cells(text, "frechet distance, squared")[2:4] == ["12.35 ± 0.46", ""]
    assert cells(text, "frechet distance, cubed")[2:4] == ["", "8 ± 0.46"]
    assert cells(text, "importance weighted bound")[2:4] == ["86.76 (standard error 0.81)", ""]
