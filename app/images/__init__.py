"""Between bytes and rows. Knows nothing of HTTP or of models."""
