"""Result files: the conditions once, then one line of figures an entry."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from benchmarks.paths import RESULTS

T = TypeVar("T", bound=BaseModel)


def write_results(name: str, entries: Sequence[BaseModel], conditions: dict[str, Any], folder: Path = RESULTS) -> None:
    """Write `<name>.json`, with three decimals."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(rounded(entry.model_dump(mode="json", exclude_defaults=True))) for entry in entries)
    head = json.dumps(conditions, indent=1)
    (folder / f"{name}.json").write_text(f'{{"conditions": {head},\n "entries": [\n  {lines}\n ]\n}}\n')


def read_results(name: str, kind: type[T], folder: Path = RESULTS) -> tuple[list[T], dict[str, Any]]:
    """The entries and the conditions of `<name>.json`."""
    content = json.loads((folder / f"{name}.json").read_text())
    return [kind.model_validate(entry) for entry in content["entries"]], content["conditions"]


def rounded(value: Any) -> Any:
    """JSON with all floats rounded to three decimals."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value
