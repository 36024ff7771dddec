"""Checkpoints on disk: the capability table, manifests, verified files."""
