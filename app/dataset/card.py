"""The card of a data set: `README.md`, with the metadata that the library `datasets` reads."""

import json
from collections.abc import Sequence

from app.dataset.formats import FORMATS
from app.dataset.plan import Plan, ShardRecord


def card(plan: Plan, records: Sequence[ShardRecord]) -> str:
    """The Markdown text. records: of all shards."""
    request, generator = plan.request, plan.generator
    pattern = FORMATS[request.format].files
    configs = [] if pattern is None else ["configs:", "- config_name: default", f"  data_files: {json.dumps(pattern)}"]
    height, width = plan.shape
    lines = [
        "---",
        "task_categories:",
        "- image-classification" if plan.labelled else "- unconditional-image-generation",
        "tags:",
        "- synthetic",
        *configs,
        "---",
        "",
        f"# {request.count:,} images of `{generator.model}`",
        "",
        f"Generated images of {height}x{width} pixels, 8 bits, grey, as {request.format}. They were made by",
        "",
        f"    {plan.command}",
        "",
        f"with the checkpoint `{generator.model}`, SHA-256 `{generator.digest}`, in {generator.precision} on the runtime",
        f"`{generator.runtime}`. On this runtime the same command writes the same bytes. `manifest.json` has everything",
        "that the bytes depend on, and the SHA-256 of each shard.",
        "",
        "## Classes",
        "",
        *_classes(plan, records),
    ]
    return "\n".join(lines) + "\n"


def _classes(plan: Plan, records: Sequence[ShardRecord]) -> list[str]:
    labels = _sums([record.labels for record in records], len(plan.classes))
    read = _sums([record.read for record in records], len(plan.classes))
    agreeing = _sums([record.agreeing for record in records], len(plan.classes))
    count = plan.request.count
    if plan.classifier is None:
        reader = "No checkpoint classifies such images, so the agreement of the labels with a classifier is not measured."
    else:
        reader = f"All images were read by the classifier `{plan.classifier.model}`, SHA-256 `{plan.classifier.digest}`."
    if not plan.labelled:
        lines = [f"The model gives no labels. {reader}"]
        if plan.classifier is None:
            return lines
        table = ["| class | read as it | share |", "| --- | ---: | ---: |"]
        table += [f"| {name} | {n:,} | {n / count:.2%} |" for name, n in zip(plan.classes, read, strict=True)]
        return [*lines, "", *table]
    if plan.classifier is None:
        table = ["| class | images | share |", "| --- | ---: | ---: |"]
        table += [f"| {name} | {n:,} | {n / count:.2%} |" for name, n in zip(plan.classes, labels, strict=True)]
        return [reader, "", *table]
    total = sum(agreeing)
    error = (total / count * (1 - total / count) / count) ** 0.5
    lines = [
        reader,
        f"It reads {total / count:.2%} of them as their label (standard error {error:.2%}). Its own errors count, too.",
    ]
    table = ["| class | images | share | read as their label | read as this class |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, n, agree, seen in zip(plan.classes, labels, agreeing, read, strict=True):
        share = f"{agree / n:.2%}" if n else ""
        table.append(f"| {name} | {n:,} | {n / count:.2%} | {share} | {seen:,} |")
    return [*lines, "", *table]


def _sums(counts: Sequence[tuple[int, ...] | None], classes: int) -> list[int]:
    known = [each for each in counts if each is not None]
    return [sum(column) for column in zip(*known, strict=True)] if known else [0] * classes
