"""The operations, one file each: request, response, batch function and route.

A module with a `router` is an operation. All modules of the package are found: a new operation is a new file.
"""

import importlib
import pkgutil

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """The router of each operation, in order of the file names."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return [module.router for module in modules if hasattr(module, "router")]
