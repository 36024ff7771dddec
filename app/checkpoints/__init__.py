"""From a directory to a ready model."""
