"""The model card: everything a person wants to know of a checkpoint, as Markdown. Knows only the manifest."""

from collections.abc import Collection, Sequence
from shlex import quote

from app.checkpoints.manifest import Archive, ControlEffect, Figure, Manifest, Quality, TrainingRecord
from training.evaluation.protocol import COPY_IMAGES, SEEDS

# What each figure says, for a reader who has not met it; `copies` is how many images were looked up.
MEANING = {
    "frechet_distance": "between normal distributions fitted to the features of generated and of test images",
    "kernel_distance": "maximum mean discrepancy of the features under a cubic kernel, squared",
    "precision": "share of generated images in the manifold of the test images; noise can have it too, see recall",
    "recall": "share of test images in the manifold of the generated images",
    "density": "how many neighbourhoods of test images a generated image is in, against the five it should be",
    "coverage": "share of test images with a generated image in their neighbourhood",
    "class_balance": "entropy of the classes that the classifier sees, 1 where all are as frequent",
    "confidence": "of the classifier in its verdict",
    "label_agreement": "share of images that the classifier takes for what was asked for",
    "nearest_training_distance": "of {copies} images, mean; 0 would be copies, smooth images are nearer to all others",
    "near_copies": "share of {copies} images nearer to a training image than all but 1 % of the test images are",
    "negative_elbo": "sum of the next two",
    "reconstruction_error": "binary cross-entropy of the test images, one posterior sample each",
    "kl_divergence": "of q(z given x) from N(0, I)",
    "active_units": "latent numbers that tell images apart",
    "importance_weighted_bound": "upper bound on -log p(x) under N(0, I), with its standard error over the images; "
    "Burda et al., 2016, report 86.76 for a VAE with one stochastic layer, at 5,000 samples",
    "negative_elbo_of_these_images": "what the bound before it is to be compared with: of the same images, one "
    "posterior sample each",
}
PICTURES = {
    "samples.png": "Images of fixed noise, not chosen",
    "neighbours.png": "Generated images, each above its nearest training image in negative",
    "traversals.png": "Walks through the latents, one a row",
    "curves.png": "Losses and figures over the epochs",
}
BETTER = {"lower": "lower", "higher": "higher", "floor": "near the floor", None: ""}
SEPARATOR = " | "
# Where a run computed and wrote.
NOT_A_CHOICE = {"family", "device", "save_steps", "save_minutes", "tensorboard", "data_dir", "runs_dir", "models_dir"}


def card(manifest: Manifest, pictures: Collection[str] = PICTURES) -> str:
    """The card of a checkpoint beside which lie `pictures`, a part of PICTURES."""
    shown = "\n\n".join(f"![{text}]({name})\n\n{text}." for name, text in PICTURES.items() if name in pictures)
    archives = [
        [precision, f"`{archive.file}`", f"{archive.bytes:,}", deviation_text(archive), f"`{archive.digest}`"]
        for precision, archive in manifest.archives.items()
    ]
    record, again = manifest.training, "\n".join(commands(manifest))
    return f"""# {manifest.name}

A `{manifest.family}` trained on {manifest.dataset.name} ({manifest.dataset.train_images:,} images).
Capabilities: {", ".join(manifest.capabilities)}. {labels_text(manifest)}

{shown}

{quality_text(manifest)}

## Archives

{table(["precision", "file", "bytes", "largest difference of a pixel from float32", "SHA-256"], archives)}

## Training

- {epochs_text(record)}, seed {record.seed}; parameters: {listed(record.parameters, ",")}
- settings: {listed(record.config)}
- losses of {shipped_epoch(record)}: {listed(record.losses, ".3f")}
- made with {listed(record.versions)}, source {record.source_commit}
- dataset SHA-256 `{manifest.dataset.digest}`

## Do it again

```sh
{again}
```
"""


def labels_text(manifest: Manifest) -> str:
    """How images are drawn, in a sentence or two."""
    first, *others = manifest.priors
    prior = "a mixture fitted to the codes of each class" if first == "fitted" else "N(0, I)"
    text = f"Latents are drawn from {prior}" + (f", or from {others[0]}." if others else ".")
    return text + (" Images are of the class asked for." if manifest.conditional or first == "fitted" else "")


def quality_text(manifest: Manifest) -> str:
    """The chapter on quality: what was measured how, the figures, and what the sampling controls do."""
    quality = manifest.quality
    if quality is None:
        return "## Quality\n\nNot measured yet."
    rows = [figure_row(name, figure) for name, figure in quality.figures.items()]
    head = ["figure", "value", "floor", "ceilings", "better", "unit"]
    copies = f"{min(COPY_IMAGES, quality.images):,}"
    meanings = "\n".join(f"- {named(name)}: {MEANING[name].format(copies=copies)}" for name in quality.figures)
    return f"""## Quality, protocol `{quality.protocol}`

{protocol_text(quality)} Values are means over the seeds ± their standard deviation. The floor is what a perfect model
would get, by what stands for one: as many training images; where the distance to training images is measured, the test
images; for label agreement, the test images and their labels; for negative ELBO and reconstruction error, the images
themselves. The ceilings are what useless models get.

{table(head, rows)}

{meanings}

{controls_text(quality)}""".rstrip()


def protocol_text(quality: Quality) -> str:
    """What was compared, and in which features."""
    seeds = ", ".join(str(seed) for seed in quality.seeds)
    text = f"{quality.images:,} images of each of the seeds {seeds}, in 8 bits, measured on the float32 archive."
    if quality.extractor is None:
        return f"{text} There is no classifier of this data: the figures that need one are left out."
    return f"{text} Features are those of the LeNet-5 with SHA-256 `{quality.extractor}`."


def figure_row(name: str, figure: Figure) -> list[str]:
    """One line of the table of figures."""
    value = number(figure.value)
    if figure.deviation is not None:
        value += f" ± {figure.deviation:.2g}"
    if figure.standard_error is not None:
        value += f" (standard error {figure.standard_error:.2g})"
    ceilings = ", ".join(f"{named(ceiling)} {number(reached)}" for ceiling, reached in figure.ceilings.items())
    return [named(name), value, number(figure.floor), ceilings, BETTER[figure.better], figure.unit]


def controls_text(quality: Quality) -> str:
    """What each way of drawing latents does, where there is a choice."""
    if not quality.controls:
        return ""
    names = list({name: None for effect in quality.controls for name in effect.figures})
    rows = [
        [drawing_text(effect), *(number(effect.figures.get(name)) for name in names)] for effect in quality.controls
    ]
    return f"""### Sampling controls

{quality.control_images:,} images of seed {quality.seeds[0]} against as many test images: compare these rows with one
another, not with the table above.

{table(["latents", *map(named, names)], rows)}
"""


def drawing_text(effect: ControlEffect) -> str:
    """One way of drawing latents."""
    text = f"{effect.prior} prior, temperature {effect.temperature:g}"
    return text if effect.truncation is None else f"{text}, truncation {effect.truncation:g}"


def epochs_text(record: TrainingRecord) -> str:
    """How long it was trained, of how long it was meant to be, and which epoch ships if that is not the last."""
    text = (
        f"stopped after {record.epochs} of {planned(record)} epochs"
        if is_stopped(record)
        else f"{record.epochs} epochs"
    )
    if record.steps:
        text += f" and {record.steps} steps of the next"
    if not is_chosen(record):
        return text
    return f"{text}, of which number {record.epoch}, the best by Frechet distance, ships"


def shipped_epoch(record: TrainingRecord) -> str:
    """The last epoch that the weights that ship have finished."""
    last = "the last whole epoch" if record.steps else "the last epoch"
    return f"epoch {record.epoch}" if is_chosen(record) else last


def planned(record: TrainingRecord) -> int:
    """The epochs that the run was to have."""
    return int(record.config.get("epochs", record.epochs))


def is_stopped(record: TrainingRecord) -> bool:
    """Whether the checkpoint was exported before the run was over."""
    return record.epochs < planned(record)


def is_chosen(record: TrainingRecord) -> bool:
    """Whether another epoch than the last ships."""
    return record.epoch not in {None, record.epochs}


def commands(manifest: Manifest) -> list[str]:
    """What trains and measures the same again: the source, and what to do with it, as lines for a shell."""
    record, quality = manifest.training, manifest.quality
    dataset = str(record.config.get("dataset", "mnist"))
    source = "" if dataset == "mnist" else f" --dataset {quote(dataset)}"
    train = [training_command(manifest.family, record)]
    if is_stopped(record):
        train.append(f"# {epochs_text(record)}: what was done then, `training export` made a checkpoint of.")
    evaluate = [f".venv/bin/python -m training evaluate {manifest.name}{source}"]
    if quality is not None and quality.seeds != SEEDS:
        evaluate[0] += f" --seeds {len(quality.seeds)}"
    if source and quality is not None and quality.extractor is not None:
        classifier = f".venv/bin/python -m training classifier{source}"
        # Where it chose the epoch, it comes before the model; else it may have been trained only afterwards.
        (train if is_chosen(record) else evaluate).insert(0, classifier)
    return [*checkout(record), *train, *evaluate]


def checkout(record: TrainingRecord) -> list[str]:
    """The command that brings back the source of the training, as far as a commit holds it."""
    if record.source_commit == "unknown":
        return ["# From which source, is not known."]
    commit = record.source_commit.removesuffix("-dirty")
    changed = "" if commit == record.source_commit else "  # and changes to it that no commit holds"
    return [f"git checkout {commit}{changed}"]


def training_command(family: str, record: TrainingRecord) -> str:
    """The command that trains the same again, with every choice spelt out: defaults may change."""
    program = ".venv/bin/python"
    if record.processes > 1:
        program = f".venv/bin/torchrun --standalone --nproc-per-node {record.processes}"
    words = [f"{program} -m training train {family}"]
    for name, value in record.config.items():
        if name in NOT_A_CHOICE or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words.append(f"{flag} {quote(str(value))}")
    return " ".join(words)


def quality_table(manifests: Sequence[Manifest]) -> str:
    """The figures of several models of one protocol side by side, between floor and ceilings.

    Only what is in one unit is in one row: errors of other pixels and numbers of other latents are not to be compared.
    """
    measured = [(manifest.name, manifest.quality.figures) for manifest in manifests if manifest.quality]
    rows = []
    for name in MEANING:
        units = list({figures[name].unit: None for _, figures in measured if name in figures})
        for unit in units:
            known = {
                model: figures[name] for model, figures in measured if name in figures and figures[name].unit == unit
            }
            values = [figure_row(name, known[model])[1] if model in known else "" for model, _ in measured]
            first, _, floor, ceilings, better, _ = figure_row(name, next(iter(known.values())))
            rows.append([first if len(units) == 1 else f"{first}, {unit}", better, *values, floor, ceilings])
    return table(["figure", "better", *(f"`{name}`" for name, _ in measured), "floor", "ceilings"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as text too."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *rows]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {SEPARATOR.join(line)} |" for line in padded)


def named(name: str) -> str:
    """A figure's or a ceiling's name as words."""
    return name.replace("_", " ")


def number(value: float | None) -> str:
    """Four digits of a figure, nothing of none."""
    return "" if value is None else f"{value:.4g}"


def listed(values: dict[str, object] | dict[str, int] | dict[str, float] | dict[str, str], form: str = "") -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value:{form}}" if form else f"{name} {value}" for name, value in values.items())


def deviation_text(archive: Archive) -> str:
    """How far an archive's images are from those of the float32 one."""
    if archive.deviation is None:
        return "0"
    return f"{255 * archive.deviation.largest:.2f}/255 over {archive.deviation.images:,} images"
