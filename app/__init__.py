"""The service: loads checkpoints and answers over HTTP. It works with capabilities and does not depend on families."""

__version__ = "0.1.0"
