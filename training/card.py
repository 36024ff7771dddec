"""The model card of a checkpoint, in Markdown, from its manifest."""

from collections.abc import Collection, Mapping
from shlex import quote

from app.checkpoints.capabilities import Symbol
from app.checkpoints.manifest import Manifest, TrainingRecord
from training.evaluation.eval_protocol import SEEDS
from training.quality_report import quality_text, table

PICTURES = {
    "samples.png": "Samples of fixed noise, not selected",
    "upscaled.png": "Test images: the input, bicubic interpolation, the upscaled image, and the original, from above",
    "reconstructions.png": "Test images, each above its reconstruction",
    "neighbours.png": "Generated images, each above the negative of its nearest training image",
    "traversals.png": "Traversals of the latent space, one per row",
    "curves.png": "Losses and figures over the epochs",
}
# Fields of a config that do not affect the weights.
NOT_LEARNED = {
    "family",
    "device",
    "save_steps",
    "save_minutes",
    "tensorboard",
    "note",
    "data_dir",
    "runs_dir",
    "models_dir",
}


def card(manifest: Manifest, pictures: Collection[str] = PICTURES) -> str:
    """The card of a checkpoint. `pictures` are the files beside it; those of PICTURES are shown."""
    shown = "\n\n".join(f"![{text}]({name})\n\n{text}." for name, text in PICTURES.items() if name in pictures)
    archives = [
        [
            precision,
            f"`{archive.file}`",
            f"{archive.bytes:,}",
            "0" if archive.deviation is None else f"{255 * archive.deviation.largest:.2f}/255",
            f"`{archive.digest}`",
        ]
        for precision, archive in manifest.archives.items()
    ]
    record, reproduce = manifest.training, "\n".join(commands(manifest))
    losses = {name: f"{loss:.3f}" for name, loss in record.losses.items()}
    return f"""# {manifest.name}

A `{manifest.family}` trained on {manifest.dataset.name} ({manifest.dataset.train_images:,} images).
Capabilities: {", ".join(manifest.capabilities)}.{latents_text(manifest)}

{shown}

{quality_text(manifest)}

## Archives

{table(["precision", "file", "bytes", "largest difference of a pixel from float32", "SHA-256"], archives)}

## Training

- {epochs_text(record)}, seed {record.seed}
{run_text(record)}- parameters: {listed({name: f"{count:,}" for name, count in record.parameters.items()})}
- settings: {listed({name: value for name, value in record.config.items() if name != "note"})}
- losses of epoch {record.epoch or record.epochs}: {listed(losses)}
- made with {listed(record.versions)}, source {record.source_commit}
- dataset SHA-256 `{manifest.dataset.digest}`{contrast_text(manifest)}

## Reproduce

```sh
{reproduce}
```
"""


def latents_text(manifest: Manifest) -> str:
    """The priors of the latents in a sentence, for models that take latents."""
    if not any(Symbol.LATENT in manifest.inputs(capability) for capability in manifest.capabilities):
        return ""
    names = {"fitted": "a density fitted to the latents of each class", "normal": "N(0, I)"}
    return f" Latents are drawn from {' or '.join(names[prior] for prior in manifest.priors)}."


def contrast_text(manifest: Manifest) -> str:
    """A line on the contrast, where it was changed at export."""
    contrast = manifest.training.contrast
    if contrast == 1:
        return ""
    exception = "; `decode`, and the figures that use it, do not" if "decode" in manifest.capabilities else ""
    return (
        f"\n- contrast: `generate` multiplies the logits of the pixels by {contrast:.4g}, a factor chosen on training "
        f"images{exception}"
    )


def epochs_text(record: TrainingRecord) -> str:
    """How long the model was trained, and which epoch was exported if it is not the last one."""
    text = f"{record.epochs} epochs"
    if was_stopped(record):
        text = f"stopped after {record.epochs} of {planned_epochs(record)} epochs"
    if record.steps:
        text += f" and {record.steps} steps of the next"
    if record.epoch in {None, record.epochs}:
        return text
    return f"{text}; epoch {record.epoch}, the best by Frechet distance, was exported"


def was_stopped(record: TrainingRecord) -> bool:
    """Whether the model was exported before the end of its run."""
    return record.epochs != planned_epochs(record)


def planned_epochs(record: TrainingRecord) -> int:
    """The number of epochs that the run was started for."""
    return int(record.config.get("epochs", record.epochs))


def run_text(record: TrainingRecord) -> str:
    """The CPU time and the note of a run, where it has them."""
    time = f"- {record.cpu_minutes:,.0f} CPU minutes\n" if record.cpu_minutes else ""
    note = record.config.get("note")
    return f"{time}- {note}\n" if note else time


def commands(manifest: Manifest) -> list[str]:
    """The shell commands that repeat the training and the measurement."""
    record, quality = manifest.training, manifest.quality
    dataset = str(record.config.get("dataset", "mnist"))
    source = "" if dataset == "mnist" else f" --dataset {quote(dataset)}"
    lines = [checkout(record)]
    if source and quality is not None and quality.extractor is not None:
        lines.append(f".venv/bin/python -m training classifier{source}")
    lines.append(training_command(manifest.family, record))
    if was_stopped(record):
        lines.append(f"# It was {epochs_text(record)}, then exported by `python -m training export`.")
    seeds = "" if quality is None or quality.seeds == SEEDS else f" --seeds {len(quality.seeds)}"
    return [*lines, f".venv/bin/python -m training evaluate {manifest.name}{source}{seeds}"]


def checkout(record: TrainingRecord) -> str:
    """The command that checks out the source of the training."""
    if record.source_commit == "unknown":
        return "# The source commit is unknown."
    commit = record.source_commit.removesuffix("-dirty")
    changed = "" if commit == record.source_commit else "  # with uncommitted changes"
    return f"git checkout {commit}{changed}"


def training_command(family: str, record: TrainingRecord) -> str:
    """The command that repeats the training, with every choice, since defaults may change."""
    program = ".venv/bin/python"
    if record.processes > 1:
        program = f".venv/bin/torchrun --standalone --nproc-per-node {record.processes}"
    words = [f"{program} -m training train {family}"]
    for name, value in record.config.items():
        if name in NOT_LEARNED or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words.append(f"{flag} {quote(str(value))}")
    return " ".join(words)


def listed(values: Mapping[str, object]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
