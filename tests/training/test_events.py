from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from tests.conftest import largest_file
from tests.training.conftest import STEPS, train_and_crash
from training.events import Events
from training.trainer import train


def read(directory: Path) -> EventAccumulator:
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def scalars(events: EventAccumulator, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(name)}


@pytest.mark.usefixtures("no_export")
def test_a_run_writes_its_losses_figures_and_samples_by_step(tiny, dataset):
    config = tiny("vae", tensorboard=True)
    train(config, dataset=dataset)
    events = read(config.run_dir / "tensorboard")
    rows = [line.split(",") for line in (config.run_dir / "metrics.csv").read_text().splitlines()]
    for name, group in (("negative_elbo", "epoch"), ("kl_divergence", "epoch"), ("spread", "figures")):
        column = rows[0].index(name)
        expected = {STEPS * number: float(row[column]) for number, row in enumerate(rows[1:], start=1)}
        assert scalars(events, f"{group}/{name}") == pytest.approx(expected, rel=1e-6)
    assert scalars(events, "step/negative_elbo").keys() == {STEPS, 2 * STEPS}
    pictures = events.Images("samples")
    assert [picture.step for picture in pictures] == [STEPS, 2 * STEPS]
    with Image.open(config.run_dir / "samples" / "epoch-0002.png") as image:
        assert (pictures[1].width, pictures[1].height) == image.size


@pytest.mark.usefixtures("no_export")
def test_a_resumed_run_has_the_scalars_of_an_uninterrupted_one(tiny, dataset):
    whole, parts = tiny("vae", name="whole", tensorboard=True), tiny("vae", name="parts", tensorboard=True)
    train(whole, dataset=dataset)
    train_and_crash(parts, dataset, 8)
    train(parts, resume=True, dataset=dataset)
    ours, theirs = (read(config.run_dir / "tensorboard") for config in (parts, whole))
    for name in ("step/negative_elbo", "epoch/negative_elbo", "figures/spread"):
        assert scalars(ours, name) == scalars(theirs, name)


@pytest.mark.usefixtures("no_export")
def test_events_are_written_if_enabled_and_a_new_run_removes_old_ones(tiny, dataset):
    config = tiny("vae", epochs=1)
    train(config, dataset=dataset)
    assert not (config.run_dir / "tensorboard").exists()
    for epochs in (2, 1):
        train(config.model_copy(update={"tensorboard": True, "epochs": epochs}), dataset=dataset)
        assert len(scalars(read(config.run_dir / "tensorboard"), "epoch/negative_elbo")) == epochs


def test_a_full_disk_raises_one_error_that_names_the_directory_and_keeps_earlier_events(tmp_path):
    def write(count: int) -> None:
        with Events(tmp_path, 0) as events:
            for step in range(count):
                events.scalars("step", {"loss": 1.0}, step)

    with largest_file(2_000), pytest.raises(OSError, match=str(tmp_path)) as caught:
        write(1_000)
    assert caught.value.__context__ is None
    steps = list(scalars(read(tmp_path), "step/loss"))
    assert steps == list(range(len(steps)))
    assert len(steps) > 10
