"""Tests that are coroutines run on asyncio, through the pytest plugin of anyio."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of the service."""
    return "asyncio"
