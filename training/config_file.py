"""Options of a run from a TOML file, or from the `config.json` that a run writes."""

import json
import tomllib
from pathlib import Path
from typing import Any


class BadConfigFile(ValueError):
    """The file cannot be read or parsed."""


def read_config_file(path: Path) -> dict[str, Any]:
    """Options by name, not validated, from a `.toml` table or a `.json` object. Raises BadConfigFile."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfigFile(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            values = json.loads(text)
            if not isinstance(values, dict):
                raise BadConfigFile(f"{path} does not hold an object")
            return values
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise BadConfigFile(f"{path} is not {path.suffix.removeprefix('.').upper()}: {error}") from error
    raise BadConfigFile(f"{path} is neither .toml nor .json")
