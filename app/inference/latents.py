"""Seeds to rows of noise and to labels, and paths between two latents. Knows no model.

A row is a pure function of (stream, seed, index): row i does not depend on how many rows were
asked for, nor on what was drawn before. `torch.randn` with a generator has no such property.
"""

import math
import secrets
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Names the function below. A change of one bit of any row is a new name.
SCHEME = "philox4x64-10/as241/1"

MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exactly
WORDS_PER_BLOCK = 4  # of Philox 4x64

# Independent streams of one seed: the second word of the Philox key.
LATENT_STREAM = 0
POSTERIOR_STREAM = 1
COMPONENT_STREAM = 2  # which component of a fitted prior
LABEL_STREAM = 3

Path = Literal["lerp", "slerp"]


def draw_seed() -> int:
    """A seed nobody chose, 0 to 2^53-1."""
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

    `truncation` keeps values within so many standard deviations: the value that was the p-quantile of the normal
    distribution is that of the distribution cut off there. `temperature` then multiplies them. Both change a seed's
    rows smoothly, where drawing again what lies outside would not.

    Philox 4x64-10 in counter mode gives 64 bits a value (J. Salmon et al., "Parallel Random Numbers: As
    Easy as 1, 2, 3", 2011; NumPy keeps its raw output stable). Row i owns the blocks that start at
    counter `i * ceil(width / 4)`, under the key (seed, stream). A word is a number between 0 and 1, and
    that quantile of the normal distribution is the value. All of it happens on the CPU in float64 and is
    rounded once.
    """
    p = open_unit_interval(raw_rows(seed, first, count, width, stream))
    if truncation is not None:
        below = math.erfc(truncation / math.sqrt(2)) / 2  # the share of the normal distribution that is cut off there
        p = below + p * (1 - 2 * below)
    values = normal_quantile(p)
    if temperature is not None:
        values *= temperature
    return values.astype(np.float32)


def uniform_labels(seed: int, first: int, count: int, classes: int) -> NDArray[np.int64]:
    """Labels `first` to `first + count - 1` of a seed: each of 0 to `classes - 1` as likely, int64 `(count,)`.

    The upper 32 bits of a word are scaled to the classes: the likeliest is more so by less than classes / 2^32.
    """
    words = raw_rows(seed, first, count, 1, LABEL_STREAM)[:, 0]
    return (((words >> np.uint64(32)) * np.uint64(classes)) >> np.uint64(32)).astype(np.int64)


def raw_rows(seed: int, first: int, count: int, width: int, stream: int) -> NDArray[np.uint64]:
    """Rows `first` to `first + count - 1` of a stream of a seed: random bits, uint64 `(count, width)`."""
    blocks = -(-width // WORDS_PER_BLOCK)
    key = np.array([seed, stream], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=first * blocks).random_raw(count * blocks * WORDS_PER_BLOCK)
    return words.reshape(count, blocks * WORDS_PER_BLOCK)[:, :width]


def interpolate(start: NDArray[np.float32], end: NDArray[np.float32], steps: int, path: Path) -> NDArray[np.float32]:
    """`steps` latents from `start` to `end`, `(latent,)` both, the ends exactly themselves: `(steps, latent)`.

    `lerp` is the straight line. `slerp` keeps to the sphere on which normal latents lie (K. Shoemake,
    1985; T. White, "Sampling Generative Networks", 2016, arXiv:1609.04468); where the two directions
    are so close or so opposite that no great circle is defined, it is the straight line.
    """
    a, b = start.astype(np.float64), end.astype(np.float64)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    weights_a, weights_b = 1.0 - t, t
    if path == "slerp":
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(np.clip(a @ b / norms, -1.0, 1.0)) if norms > 0 else 1.0
        angle = np.arccos(cosine)
        if np.sin(angle) > 1e-6:
            weights_a = np.sin((1.0 - t) * angle) / np.sin(angle)
            weights_b = np.sin(t * angle) / np.sin(angle)
    rows = (weights_a * a + weights_b * b).astype(np.float32)
    rows[0], rows[-1] = start, end
    return rows


def open_unit_interval(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Words of any shape to numbers above 0 and below 1: (u + 1/2) / 2^52 of their upper 52 bits u.

    With 53 bits the largest would be rounded to 1, whose quantile is infinite.
    """
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard normal quantile of `p` in (0, 1), any shape; relative error about 1e-16.

    Source: M. J. Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", 1988,
    function PPND16, whose coefficients these are.
    """
    q = p - 0.5
    above, below = _polynomials(0.180625 - q * q, _CENTRAL)
    result: NDArray[np.float64] = q * above / below
    tail = np.abs(q) > 0.425
    if tail.any():
        q_tail, p_tail = q[tail], p[tail]
        # min(p, 1 - p), formed from p so that the upper tail loses nothing that p still holds.
        distance = np.where(q_tail < 0, p_tail, 1.0 - p_tail)
        r = np.sqrt(-np.log(distance))
        above, below = _polynomials(r - 1.6, _NEAR)
        magnitude = above / below
        far = r > 5.0
        if far.any():
            above, below = _polynomials(r[far] - 5.0, _FAR)
            magnitude[far] = above / below
        result[tail] = np.copysign(magnitude, q_tail)
    return result


def _polynomials(x: NDArray[np.float64], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numerator and denominator at `x`, any shape: `(2, *x.shape)`. coefficients: `(8, 2)`, the constants first."""
    # Horner's rule, both at once and in place: for a single row, calling numpy takes longer than computing.
    rows = coefficients.reshape(8, 2, *(1,) * x.ndim)
    total: NDArray[np.float64] = rows[7] * x
    for row in rows[6:0:-1]:
        total += row
        total *= x
    total += rows[0]
    return total


_CENTRAL_NUMERATOR = (
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
)  # fmt: skip
_CENTRAL_DENOMINATOR = (
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
)  # fmt: skip
_NEAR_NUMERATOR = (
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
)  # fmt: skip
_NEAR_DENOMINATOR = (
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
)  # fmt: skip
_FAR_NUMERATOR = (
    6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
)  # fmt: skip
_FAR_DENOMINATOR = (
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
)  # fmt: skip

_CENTRAL = np.array([_CENTRAL_NUMERATOR, _CENTRAL_DENOMINATOR]).T
_NEAR = np.array([_NEAR_NUMERATOR, _NEAR_DENOMINATOR]).T
_FAR = np.array([_FAR_NUMERATOR, _FAR_DENOMINATOR]).T
