"""Lengths: means are kept, tails are there, nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.lengths import histogram, lognormal
from perfmodel.profile import ProfileError


@given(st.floats(1, 50_000), st.floats(0, 8))
def test_a_lognormal_keeps_its_mean_and_rises(mean: float, cv2: float) -> None:
    lengths = lognormal(mean, cv2)
    assert lengths.mean == pytest.approx(mean, rel=1e-9)
    assert sum(lengths.shares) == pytest.approx(1)
    assert list(lengths.tokens) == sorted(lengths.tokens)
    assert lengths.cv2 <= cv2 + 1e-3


@pytest.mark.parametrize(("cv2", "kept"), [(0.2, 0.95), (1.0, 0.88), (4.0, 0.6)])
def test_classes_keep_most_of_the_variability(cv2: float, kept: float) -> None:
    assert lognormal(1000, cv2).cv2 >= kept * cv2


def test_longer_ones_count_as_the_longest() -> None:
    assert lognormal(1000, 4, longest=2000).tokens[-1] == 2000
    assert lognormal(5000, 0, longest=2000).tokens == (2000,)


def test_a_histogram_is_sorted_and_normalised() -> None:
    lengths = histogram([(300, 1), (100, 3), (500, 0)])
    assert (lengths.tokens, lengths.shares) == ((100, 300), (0.75, 0.25))
    assert lengths.mean == 150
    assert lengths.cv2 == pytest.approx(1 / 3)


@pytest.mark.parametrize("weights", [[], [(0, 1)], [(100, -1)], [(float("nan"), 1)], [(100, float("inf"))]])
def test_what_is_no_histogram(weights: list[tuple[float, float]]) -> None:
    with pytest.raises(ProfileError, match="expected at least one length"):
        histogram(weights)


@pytest.mark.parametrize(("mean", "cv2"), [(0, 1), (100, -1), (float("nan"), 1), (100, float("inf"))])
def test_what_is_no_lognormal(mean: float, cv2: float) -> None:
    with pytest.raises(ProfileError, match="expected above 0, cv2 0 or more"):
        lognormal(mean, cv2)
