"""A service with a key, and its description."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.conftest import serving

KEY = "correct-horse-battery"
ORIGIN = {"Origin": "https://a.org"}


@pytest.fixture(scope="session")
def guarded(tiny_models: Path) -> Iterator[httpx.Client]:
    """A service with a key, which pages of an origin may call."""
    with serving(models_dir=tiny_models, api_key=KEY, cors_origins=ORIGIN["Origin"]) as client:
        yield client


@pytest.fixture(scope="session")
def description() -> dict[str, Any]:
    """The OpenAPI description with the default settings."""
    return create_app(Settings()).openapi()
