"""Models and batches: from a caller's rows to the bytes of an answer."""
