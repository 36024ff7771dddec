"""Fixtures of several tests."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def collected() -> Iterator[None]:
    """Warnings of what the libraries leave open come within the test that ignores them."""
    yield
    gc.collect()
