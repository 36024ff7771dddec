"""The service: loads checkpoints and serves them over HTTP and gRPC. It depends on capabilities, not on families."""

__version__ = "0.1.0"
