"""The card of a data set: `README.md`, with the metadata that the library `datasets` reads."""

import json
from collections.abc import Sequence

from app.dataset.formats import FORMATS
from app.dataset.plan import Plan, ShardRecord


def card(plan: Plan, records: Sequence[ShardRecord]) -> str:
    """The Markdown text. records: of all shards."""
    request, generator = plan.request, plan.generator
    pattern = FORMATS[request.format].files
    configs = "" if pattern is None else f"configs:\n- config_name: default\n  data_files: {json.dumps(pattern)}\n"
    height, width = plan.shape
    return f"""---
task_categories:
- {"image-classification" if plan.labelled else "unconditional-image-generation"}
tags:
- synthetic
{configs}---

# {request.count:,} images of `{generator.model}`

Generated images of {height}x{width} pixels, 8 bits, grey, in the format {request.format}. They were made by

    {plan.command}

with the checkpoint `{generator.model}`, SHA-256 `{generator.digest}`, in {generator.precision} on the runtime
`{generator.runtime}`. On this runtime the same command writes the same bytes. `manifest.json` names all that the bytes
depend on, and the SHA-256 of each shard.

## Classes

{_classes(plan, records)}
"""


def _classes(plan: Plan, records: Sequence[ShardRecord]) -> str:
    """The balance of the classes, and what the classifier reads."""
    classes, count = plan.classes, plan.request.count
    reader = plan.classifier and f"the classifier `{plan.classifier.model}`, SHA-256 `{plan.classifier.digest}`"
    columns: dict[str, list[str]] = {"class": list(classes)}
    text = "The images have no labels." if not plan.labelled else ""
    if plan.labelled:
        images = _sums([record.labels for record in records])
        columns |= {"images": [f"{n:,}" for n in images], "share": [f"{n / count:.2%}" for n in images]}
    if reader is None:
        text += " No checkpoint classifies such images, so that the agreement of labels and images is not measured."
    else:
        columns["read as this class"] = [f"{n:,}" for n in _sums([record.read for record in records])]
    if reader is not None and plan.labelled:
        agreeing = _sums([record.agreeing for record in records])
        rate = sum(agreeing) / count
        error = (rate * (1 - rate) / count) ** 0.5
        columns["read as their label"] = [f"{a / n:.2%}" if n else "" for a, n in zip(agreeing, images, strict=True)]
        text += f"Of all images, {rate:.2%} are read as their label (standard error {error:.2%}) by {reader}."
        text += " The figure includes the errors of the classifier."
    elif reader is not None:
        text += f" All of them were read by {reader}."
    if len(columns) == 1:
        return text.strip()
    rows = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *zip(*columns.values(), strict=True)]
    return "\n".join([text.strip(), "", *(f"| {' | '.join(row)} |" for row in rows)])


def _sums(counts: Sequence[tuple[int, ...] | None]) -> list[int]:
    return [sum(column) for column in zip(*(each for each in counts if each is not None), strict=True)]
