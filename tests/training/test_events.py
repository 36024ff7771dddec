"""What TensorBoard reads of a run, read by TensorBoard's own reader."""

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from tests.training.conftest import STEPS, Crash, at_step, crash
from training.events import Events
from training.trainer import train


def read(directory: Path) -> EventAccumulator:
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def scalars(events: EventAccumulator, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(name)}


@pytest.mark.usefixtures("no_export")
def test_a_run_leaves_its_losses_figures_and_samples_by_step(tiny, dataset):
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
def test_a_run_that_goes_on_hides_what_it_does_anew(tiny, dataset, monkeypatch):
    whole, parts = tiny("vae", name="whole", tensorboard=True), tiny("vae", name="parts", tensorboard=True)
    train(whole, dataset=dataset)
    with monkeypatch.context() as context:
        at_step(context, 8, crash)
        with pytest.raises(Crash):
            train(parts, dataset=dataset)
    train(parts, resume=True, dataset=dataset)
    ours, theirs = (read(config.run_dir / "tensorboard") for config in (parts, whole))
    for name in ("step/negative_elbo", "epoch/negative_elbo", "figures/spread"):
        assert scalars(ours, name) == scalars(theirs, name)


@pytest.mark.usefixtures("no_export")
def test_a_run_that_starts_anew_removes_the_old_events(tiny, dataset):
    config = tiny("vae", tensorboard=True)
    train(config, dataset=dataset)
    train(config.model_copy(update={"epochs": 1}), dataset=dataset)
    assert scalars(read(config.run_dir / "tensorboard"), "epoch/negative_elbo").keys() == {STEPS}


@pytest.mark.usefixtures("no_export")
def test_no_events_are_written_where_none_are_asked_for(tiny, dataset):
    config = tiny("vae", epochs=1)
    train(config, dataset=dataset)
    assert not (config.run_dir / "tensorboard").exists()


def test_a_picture_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grid.png")
    with Events(tmp_path / "events", 0) as events:
        events.picture("grid", tmp_path / "grid.png", 3)
    picture = read(tmp_path / "events").Images("grid")[0]
    (tmp_path / "back.png").write_bytes(picture.encoded_image_string)
    with Image.open(tmp_path / "back.png") as image:
        assert np.array_equal(np.asarray(image.convert("L")), pixels)


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of 2,000 bytes at most, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_fills_up_is_one_error_that_names_the_directory(tmp_path):
    def write(count: int) -> None:
        with Events(tmp_path, 0) as events:
            for step in range(count):
                events.scalars("step", {"loss": 1.0}, step)

    threads = threading.active_count()
    with pytest.raises(OSError, match=f"File too large: '{tmp_path}'") as caught:
        write(1_000)
    assert caught.value.__context__ is None, "closing says nothing more"
    assert threading.active_count() == threads
    steps = list(scalars(read(tmp_path), "step/loss"))
    assert steps == list(range(len(steps)))
    assert len(steps) > 10, "what there was room for is there"
