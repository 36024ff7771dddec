"""Noise and labels from a seed.

A row is a pure function of (stream, seed, index): row i does not depend on the number of rows requested or on earlier
draws. `torch.randn` with a generator has no such property.
"""

import math
import secrets
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Version of the functions below. Change it whenever one bit of any row changes.
SCHEME = "philox4x64-10/ndtri/1"

MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exactly
WORDS_PER_BLOCK = 4  # of Philox 4x64

# Independent streams of one seed: the second word of the Philox key.
LATENT_STREAM = 0
POSTERIOR_STREAM = 1
COMPONENT_STREAM = 2  # the mixture component of a fitted prior
LABEL_STREAM = 3


def draw_seed() -> int:
    """A random seed, 0 to 2^53 - 1."""
    return secrets.randbelow(MAX_SEED + 1)


def normal_rows(
    seed: int,
    first: int,
    count: int,
    width: int,
    *,
    stream: int = LATENT_STREAM,
    temperature: float | None = None,
    truncation: float | None = None,
) -> NDArray[np.float32]:
    """Rows `first` to `first + count - 1` of a seed: standard normal, float32 `(count, width)`.

    truncation: bound in standard deviations. The p-quantile of the normal distribution becomes the p-quantile of the
    distribution truncated there, which changes the rows of a seed continuously; redrawing would not.
    temperature: factor applied afterwards.

    Philox 4x64-10 in counter mode gives 64 bits a value (J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2,
    3", 2011; NumPy keeps its raw output stable). Row i owns the blocks that start at counter `i * ceil(width / 4)`
    under the key (seed, stream). A word becomes a number p in (0, 1), and the value is the p-quantile of the normal
    distribution, computed on the CPU in float64 and rounded once.
    """
    words = raw_rows(seed, first, count, width, stream)
    return normal(words, 1.0 if temperature is None else temperature, tail(truncation))


def normal(
    words: NDArray[np.uint64],
    temperature: float | NDArray[np.float64] = 1.0,
    below: float | NDArray[np.float64] = 0.0,
) -> NDArray[np.float32]:
    """The normal values of words `(n, width)`, as `normal_rows` has them; each row may have its own options `(n, 1)`.

    below: the `tail` of the truncation. The defaults change no value.
    """
    p = below + open_unit_interval(words) * (1 - 2 * below)
    values: NDArray[np.float64] = torch.special.ndtri(torch.from_numpy(p)).numpy()
    return (values * temperature).astype(np.float32)


def tail(truncation: float | None) -> float:
    """The probability below `-truncation` standard deviations; 0 for None."""
    return 0.0 if truncation is None else math.erfc(truncation / math.sqrt(2)) / 2


def uniform_labels(seed: int, first: int, count: int, classes: int) -> NDArray[np.int64]:
    """Labels `first` to `first + count - 1` of a seed: uniform in 0 to `classes - 1`, int64 `(count,)`.

    The upper 32 bits of a word are scaled to the classes, with a bias below classes / 2^32.
    """
    words = raw_rows(seed, first, count, 1, LABEL_STREAM)[:, 0]
    return (((words >> np.uint64(32)) * np.uint64(classes)) >> np.uint64(32)).astype(np.int64)


def raw_rows(seed: int, first: int, count: int, width: int, stream: int) -> NDArray[np.uint64]:
    """Rows `first` to `first + count - 1` of a stream of a seed: random bits, uint64 `(count, width)`."""
    blocks = -(-width // WORDS_PER_BLOCK)
    high, low = divmod(first * blocks, 2**64)
    state: Any = {
        "bit_generator": "Philox",
        "state": {"counter": (low, high, 0, 0), "key": (seed, stream)},
        "buffer": (0, 0, 0, 0),
        "buffer_pos": WORDS_PER_BLOCK,  # empty
        "has_uint32": 0,
        "uinteger": 0,
    }
    _generator.philox.state = state  # NumPy's setter takes tuples as well as arrays, in half the time
    words = _generator.philox.random_raw(count * blocks * WORDS_PER_BLOCK)
    return words.reshape(count, blocks * WORDS_PER_BLOCK)[:, :width]


class _Generator(threading.local):
    """One generator a thread: making one takes longer than drawing a row."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(0)


_generator = _Generator()


def open_unit_interval(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Words of any shape to numbers in (0, 1): (u + 1/2) / 2^52 of their upper 52 bits u.

    With 53 bits the largest number would round to 1, whose quantile is infinite.
    """
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
