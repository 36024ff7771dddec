"""Seeds to latents: pinned vectors, independence of n and first, distribution."""

import hashlib
from statistics import NormalDist

import numpy as np
import pytest

from app.inference import latents
from app.inference.interpolation import interpolate
from app.inference.latents import (
    COMPONENT_STREAM,
    LABEL_STREAM,
    LATENT_STREAM,
    MAX_SEED,
    POSTERIOR_STREAM,
    SCHEME,
    normal_rows,
    open_unit_interval,
    raw_rows,
    uniform_labels,
)

# (seed, index, width, stream) to the exact row. If this fails, the seeds that users have written down give other
# images: that needs a new SCHEME, not new vectors.
VECTORS = [
    (0, 0, 4, 0, ["-0x1.22cd1ap+1", "-0x1.671474p-1", "-0x1.380f16p+0", "0x1.4c209ap-3"]),
    (7, 37, 3, 0, ["-0x1.3c6f6p-1", "0x1.47383ep+0", "-0x1.e93952p-2"]),
    (MAX_SEED, MAX_SEED, 5, 0,
     ["-0x1.03c806p+0", "-0x1.0422e2p-1", "-0x1.2aed6cp-6", "0x1.bb0532p-2", "0x1.a13a2ap+0"]),
    (7, 0, 4, 1, ["0x1.2ffa08p+0", "-0x1.566d54p-2", "0x1.5e9f08p-5", "-0x1.bd6a7ap-2"]),
]  # fmt: skip
DIGESTS = {
    100: "526d40ed1493c3739c5d7be0178cfedba8b839f822e41b6000384f8f47818c66",
    16: "31cec87bca80b0e7609e98e22a2848c0ffb5ca2c2a17cef148af7b10eaa66434",
}
LABELS_OF_SEED_0 = [4, 0, 6, 4, 0, 5, 4, 7, 8, 1, 1, 2, 8, 7, 5, 7, 6, 5, 2, 3]
# (seed, index) to the number that picks the component of a fitted prior.
COMPONENTS = {(0, 0): "0x1.c9e8b0p-1", (7, 37): "-0x1.0b6cdcp+0", (MAX_SEED, MAX_SEED): "-0x1.9914d8p-3"}


def test_the_vectors_belong_to_this_scheme():
    assert SCHEME == "philox4x64-10/ndtri/1"


@pytest.mark.parametrize(("seed", "index", "width", "stream", "expected"), VECTORS)
def test_a_row_is_its_pinned_vector(seed, index, width, stream, expected):
    row = normal_rows(seed, index, 1, width, stream=stream)[0]
    assert row.dtype == np.float32
    assert row.tolist() == [float.fromhex(value) for value in expected]


@pytest.mark.parametrize("width", DIGESTS)
def test_a_thousand_rows_have_their_pinned_digest(width):
    rows = normal_rows(1, 0, 1000, width)
    assert hashlib.sha256(rows.tobytes()).hexdigest() == DIGESTS[width]


def test_seeds_indices_and_streams_have_different_rows():
    rows = [
        normal_rows(seed, index, 1, 8, stream=stream)[0]
        for seed in (0, 1, 2, MAX_SEED)
        for index in (0, 1, 2, MAX_SEED)
        for stream in (LATENT_STREAM, POSTERIOR_STREAM, COMPONENT_STREAM, LABEL_STREAM)
    ]
    assert len({row.tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize(("seed", "first", "width"), [(0, 0, 1), (7, 3, 6), (MAX_SEED, MAX_SEED, 2**14)])
def test_the_words_are_those_of_philox_under_the_documented_key_and_counter(seed, first, width):
    blocks = -(-width // 4)
    key = np.array([seed, POSTERIOR_STREAM], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=first * blocks).random_raw(2 * 4 * blocks).reshape(2, -1)
    assert np.array_equal(raw_rows(seed, first, 2, width, POSTERIOR_STREAM), words[:, :width])


def test_values_are_standard_normal():
    values = normal_rows(3, 0, 4000, 100).ravel().astype(np.float64)
    assert abs(values.mean()) < 5 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 5 / np.sqrt(2 * values.size)
    # Kolmogorov-Smirnov at a level of about one in a million
    cdf = np.array([NormalDist().cdf(value) for value in np.sort(values[:50_000])])
    steps = np.arange(1, cdf.size + 1) / cdf.size
    assert np.abs(cdf - steps).max() < 2.7 / np.sqrt(cdf.size)


def test_the_smallest_and_the_largest_word_have_finite_quantiles(monkeypatch):
    numbers = open_unit_interval(np.array([[0, 2**64 - 1]], dtype=np.uint64))
    assert numbers[0, 0] > 0
    assert numbers[0, 1] < 1
    monkeypatch.setattr(latents, "open_unit_interval", lambda words: numbers)
    low, high = normal_rows(0, 0, 1, 2)[0]
    assert np.isfinite([low, high]).all()
    assert low == pytest.approx(-high, rel=0.02)


def test_labels_and_components_are_the_pinned_ones():
    assert uniform_labels(0, 0, 20, 10).tolist() == LABELS_OF_SEED_0
    for (seed, index), expected in COMPONENTS.items():
        assert normal_rows(seed, index, 1, 1, stream=COMPONENT_STREAM).item() == float.fromhex(expected)


def test_a_label_does_not_depend_on_the_number_of_labels_or_on_the_first_one():
    whole = uniform_labels(7, 0, 100, 10)
    assert whole.dtype == np.int64
    for first, count in ((0, 1), (37, 3), (99, 1)):
        assert np.array_equal(uniform_labels(7, first, count, 10), whole[first : first + count])
    assert uniform_labels(MAX_SEED, MAX_SEED, 1, 300).shape == (1,)


@pytest.mark.parametrize("truncation", [0.01, 0.5, 1.0, 2.0, 5.0])
def test_truncation_maps_each_value_to_the_same_quantile_of_the_truncated_normal(truncation):
    normal = NormalDist()
    plain, cut = (normal_rows(3, 0, 50, 10, truncation=t).ravel().tolist() for t in (None, truncation))
    below, above = normal.cdf(-truncation), normal.cdf(truncation)
    expected = [normal.inv_cdf(below + normal.cdf(value) * (above - below)) for value in plain]
    np.testing.assert_allclose(cut, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(cut).max() <= np.float32(truncation)


def test_a_wide_truncation_changes_nothing_and_a_narrow_one_gives_nearly_zero():
    plain = normal_rows(3, 0, 200, 10)
    np.testing.assert_allclose(normal_rows(3, 0, 200, 10, truncation=10.0), plain, rtol=1e-6)
    assert np.abs(normal_rows(3, 0, 200, 10, truncation=1e-12)).max() <= 1e-12


def test_temperature_multiplies_after_truncation():
    plain = normal_rows(3, 0, 20, 10)
    assert np.array_equal(normal_rows(3, 0, 20, 10, temperature=0.5), plain * np.float32(0.5))
    assert np.array_equal(normal_rows(3, 0, 20, 10, temperature=1.0), plain)
    both = normal_rows(3, 0, 20, 10, temperature=2.0, truncation=1.0)
    assert np.array_equal(both, 2 * normal_rows(3, 0, 20, 10, truncation=1.0))


@pytest.mark.parametrize("controls", [{}, {"truncation": 0.7}, {"temperature": 0.7}], ids=str)
@pytest.mark.parametrize("width", [10, 100])
def test_a_row_does_not_depend_on_the_number_of_rows_or_on_the_first_one(width, controls):
    whole = normal_rows(7, 0, 100, width, **controls)
    for first, count in ((0, 1), (0, 99), (1, 1), (37, 2), (5, 95)):
        assert np.array_equal(normal_rows(7, first, count, width, **controls), whole[first : first + count])


@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_the_ends_of_a_path_are_exactly_the_two_latents(path):
    start, end = normal_rows(1, 0, 1, 100)[0], normal_rows(2, 0, 1, 100)[0]
    rows = interpolate(start, end, 7, path)
    assert rows.shape == (7, 100)
    assert rows.dtype == np.float32
    assert np.array_equal(rows[0], start)
    assert np.array_equal(rows[-1], end)


def test_lerp_is_evenly_spaced_on_a_line():
    rows = interpolate(np.zeros(3, np.float32), np.array([3, -6, 9], np.float32), 4, "lerp")
    np.testing.assert_allclose(rows, [[0, 0, 0], [1, -2, 3], [2, -4, 6], [3, -6, 9]])


def test_slerp_keeps_the_norm_and_turns_by_equal_angles():
    start, end = np.array([2, 0, 0], np.float32), np.array([0, 2, 0], np.float32)
    rows = interpolate(start, end, 4, "slerp")
    angles = np.radians([0, 30, 60, 90])
    np.testing.assert_allclose(rows, 2 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1), atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0])
def test_slerp_between_latents_without_a_great_circle_is_finite(factor):
    start = normal_rows(1, 0, 1, 16)[0]
    rows = interpolate(start, start * np.float32(factor), 5, "slerp")
    assert np.isfinite(rows).all()
