"""Choices of a run from a file, TOML or the JSON that a run leaves. Knows no family and no flag."""

import json
import tomllib
from pathlib import Path
from typing import Any


class BadConfigFile(ValueError):
    """The file cannot be read, or not as what its name says."""


def read_config_file(path: Path) -> dict[str, Any]:
    """The choices by name, not yet judged. Raises BadConfigFile.

    `.toml` files hold one `name = value` a line; `.json` files an object, as `config.json` of a run does.
    """
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
