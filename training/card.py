"""The model card of a checkpoint, in Markdown, from its manifest."""

from collections.abc import Collection, Mapping, Sequence
from shlex import quote

from app.checkpoints.capabilities import Symbol
from app.checkpoints.manifest import ControlEffect, Figure, Manifest, Quality, TrainingRecord
from training.evaluation.eval_protocol import COPY_IMAGES, SEEDS

# The explanation of each figure. `copies` is the number of images that were compared with training images.
MEANING = {
    "frechet_distance": "between normal distributions fitted to the features of generated and of test images",
    "kernel_distance": "squared maximum mean discrepancy of the features under a cubic kernel",
    "precision": "share of generated images in the manifold of the test images; noise can have it too, see recall",
    "recall": "share of test images in the manifold of the generated images",
    "density": "number of neighbourhoods of test images that a generated image is in, relative to the expected five",
    "coverage": "share of test images with a generated image in their neighbourhood",
    "class_balance": "entropy of the classes that the classifier predicts, 1 where all are equally frequent",
    "confidence": "probability of the class that the classifier predicts",
    "label_agreement": "share of images for which the classifier predicts the requested label",
    "nearest_training_distance": "mean of {copies} images; copies have 0, and smooth images are near to all others",
    "near_copies": "share of {copies} images nearer to a training image than all but 1 % of the test images are",
    "negative_elbo": "reconstruction error plus KL divergence",
    "reconstruction_error": "binary cross-entropy of the test images, one posterior sample each",
    "kl_divergence": "of q(z given x) from N(0, I)",
    "active_units": "latent dimensions whose posterior mean varies over the images",
    "importance_weighted_bound": "upper bound on -log p(x) under N(0, I), with its standard error over the images; "
    "Burda et al., 2016, report 86.76 for a VAE with one stochastic layer, at 5,000 samples",
    "negative_elbo_of_these_images": "of the images of the bound, to compare with it; one posterior sample each",
}
PICTURES = {
    "samples.png": "Samples of fixed noise, not selected",
    "reconstructions.png": "Test images, each above its reconstruction",
    "neighbours.png": "Generated images, each above the negative of its nearest training image",
    "traversals.png": "Traversals of the latent space, one per row",
    "curves.png": "Losses and figures over the epochs",
}
BETTER = {"lower": "lower", "higher": "higher", "floor": "near the floor", None: ""}
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
    """The card of a checkpoint. `pictures` are the files of PICTURES beside it."""
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
    record, again = manifest.training, "\n".join(commands(manifest))
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
- dataset SHA-256 `{manifest.dataset.digest}`

## Reproduce

```sh
{again}
```
"""


def latents_text(manifest: Manifest) -> str:
    """The priors of the latents in a sentence, for models that take latents."""
    if not any(Symbol.LATENT in manifest.inputs(capability) for capability in manifest.capabilities):
        return ""
    names = {"fitted": "a mixture fitted to the latents of each class", "normal": "N(0, I)"}
    return f" Latents are drawn from {' or '.join(names[prior] for prior in manifest.priors)}."


def quality_text(manifest: Manifest) -> str:
    """The chapter on quality: protocol, figures, and the effect of the sampling controls."""
    quality = manifest.quality
    if quality is None:
        return "## Quality\n\nNot measured yet."
    if not quality.figures:
        return f"## Quality\n\nThe protocol `{quality.protocol}` has no figures for these capabilities."
    rows = [figure_row(name, figure) for name, figure in quality.figures.items()]
    head = ["figure", "value", "floor", "ceilings", "better", "unit"]
    copies = f"{min(COPY_IMAGES, quality.images):,}"
    known = [name for name in quality.figures if name in MEANING]
    meanings = "\n".join(f"- {named(name)}: {MEANING[name].format(copies=copies)}" for name in known)
    return f"""## Quality, protocol `{quality.protocol}`

{protocol_text(quality)} Values are means over the seeds ± their standard deviation. The floor is the figure of real
images in place of generated ones, or of a perfect reconstruction. The ceilings are the figures of useless models.

{table(head, rows)}

{meanings}

{controls_text(quality)}""".rstrip()


def protocol_text(quality: Quality) -> str:
    """What was compared, in which features."""
    seeds = ", ".join(str(seed) for seed in quality.seeds)
    text = f"{quality.images:,} images of each of the seeds {seeds}, in 8 bits, from the float32 archive."
    if quality.extractor is None:
        return f"{text} There is no classifier of this data: the figures that need one are left out."
    return f"{text} Features are those of the LeNet-5 with SHA-256 `{quality.extractor}`."


def figure_row(name: str, figure: Figure) -> list[str]:
    """One row of the table of figures."""
    value = number(figure.value)
    if figure.deviation is not None:
        value += f" ± {figure.deviation:.2g}"
    if figure.standard_error is not None:
        value += f" (standard error {figure.standard_error:.2g})"
    ceilings = ", ".join(f"{named(ceiling)} {number(reached)}" for ceiling, reached in figure.ceilings.items())
    return [named(name), value, number(figure.floor), ceilings, BETTER[figure.better], figure.unit]


def controls_text(quality: Quality) -> str:
    """Figures under each setting of the sampling controls."""
    if not quality.controls:
        return ""
    names = list({name: None for effect in quality.controls for name in effect.figures})
    rows = [
        [setting_text(effect), *(number(effect.figures.get(name)) for name in names)] for effect in quality.controls
    ]
    return f"""### Sampling controls

{quality.control_images:,} images of seed {quality.seeds[0]} against as many test images. These rows are comparable with
each other, but not with the table above.

{table(["latents", *map(named, names)], rows)}
"""


def setting_text(effect: ControlEffect) -> str:
    """One setting of the sampling controls."""
    text = f"{effect.prior} prior, temperature {effect.temperature:g}"
    return text if effect.truncation is None else f"{text}, truncation {effect.truncation:g}"


def epochs_text(record: TrainingRecord) -> str:
    """How long the model was trained, and which epoch was exported if it is not the last one."""
    planned = int(record.config.get("epochs", record.epochs))
    text = (
        f"{record.epochs} epochs" if record.epochs == planned else f"stopped after {record.epochs} of {planned} epochs"
    )
    if record.steps:
        text += f" and {record.steps} steps of the next"
    if record.epoch in {None, record.epochs}:
        return text
    return f"{text}; epoch {record.epoch}, the best by Frechet distance, was exported"


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
    if epochs_text(record).startswith("stopped"):
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


def quality_table(manifests: Sequence[Manifest]) -> str:
    """The figures of several models of one protocol, with floor and ceilings. Each unit has a row of its own."""
    measured = [(manifest.name, manifest.quality.figures) for manifest in manifests if manifest.quality]
    named_rows: dict[tuple[str, str], dict[str, Figure]] = {}
    for model, figures in measured:
        for name, figure in figures.items():
            named_rows.setdefault((name, figure.unit), {})[model] = figure
    order = list(MEANING)
    keys = sorted(named_rows, key=lambda key: order.index(key[0]) if key[0] in order else len(order))
    rows = []
    for name, unit in keys:
        known = named_rows[name, unit]
        values = [figure_row(name, known[model])[1] if model in known else "" for model, _ in measured]
        first, _, floor, ceilings, better, _ = figure_row(name, next(iter(known.values())))
        alone = sum(key[0] == name for key in keys) == 1
        rows.append([first if alone else f"{first}, {unit}", better, *values, floor, ceilings])
    return table(["figure", "better", *(f"`{name}`" for name, _ in measured), "floor", "ceilings"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *rows]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def named(name: str) -> str:
    """The name of a figure or a ceiling in words."""
    return name.replace("_", " ")


def number(value: float | None) -> str:
    """A figure with four digits, or nothing."""
    return "" if value is None else f"{value:.4g}"


def listed(values: Mapping[str, object]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
