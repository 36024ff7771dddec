"""What every client asks: ten digits of a seed, and the scores of these digits."""

from typing import Any

import numpy as np

MODEL, SCORER = "cgan.generate", "cgan.discriminate"
LABELS = np.arange(10, dtype=np.int64)
SEEDED = {"seed": 8, "first": 3}
# The inputs of requests that are wrong.
TOO_NARROW = np.zeros((1, 3), np.float32)

Answers = dict[str, Any]
