"""The service: loads checkpoints and answers over HTTP. Knows capabilities, never families."""
