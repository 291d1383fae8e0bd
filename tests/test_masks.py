"""What each mask hides, on a path of which one knows the answer."""

import numpy as np
import pytest

from mobtk.errors import BadInput
from mobtk.masks import Block, KeepEvery, KeyPoints, Last, Modality, OriginDestination, RandomPoints, Segments, TravelTime

N = 41


def _hide(mask, n=N, seed=0):
    time = np.arange(n, dtype=float)
    place = np.column_stack([np.minimum(time, 20), np.maximum(time - 20, 0)]) * 100.0  # east, then north
    return mask(time, place, np.random.default_rng(seed))


@pytest.mark.parametrize("mask", [RandomPoints, Segments, KeyPoints])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_is_kept(mask, share):
    for seed in range(5):
        assert _hide(mask(share=share), seed=seed).place.sum() == round(share * (N - 1))


def test_a_block_is_one_stretch_within():
    for seed in range(20):
        at = np.flatnonzero(_hide(Block(share=0.25), seed=seed).place)
        assert len(at) == 10 and (np.diff(at) == 1).all() and at[0] >= 1 and at[-1] <= N - 2


def test_segments_are_stretches():
    runs = [np.diff(np.flatnonzero(np.diff(np.r_[0, _hide(Segments(share=0.5, mean=10), seed=s).place, 0])))[::2]
            for s in range(30)]  # fmt: skip
    assert np.concatenate(runs).mean() > 4  # single points would make runs of 2


def test_key_points_are_where_a_path_turns():
    assert np.flatnonzero(_hide(KeyPoints(share=0.05)).place).tolist() == [20, 40]


def test_the_last_are_the_last():
    assert np.flatnonzero(_hide(Last(points=3)).place).tolist() == [38, 39, 40]
    assert _hide(Last(points=3, times=True)).time.sum() == 3
    assert _hide(Last(points=50)).place.sum() == N // 2


def test_every_eighth_is_kept_and_the_last():
    assert np.flatnonzero(~_hide(KeepEvery(points=8)).place).tolist() == [0, 8, 16, 24, 32, 40]
    assert np.flatnonzero(~_hide(KeepEvery(points=8), n=38).place).tolist() == [0, 8, 16, 24, 32, 37]


def test_times_are_asked_for():
    assert _hide(TravelTime()).time.sum() == N - 1 and not _hide(TravelTime()).place.any()
    assert _hide(Modality(what="time")).time.sum() == N - 1
    either = [_hide(Modality(), seed=s) for s in range(20)]
    assert {(h.place.sum(), h.time.sum()) for h in either} == {(N - 1, 0), (0, N - 1)}
    ends = _hide(OriginDestination())
    assert np.flatnonzero(ends.time).tolist() == [N - 1] and ends.absent.sum() == N - 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RandomPoints(share=0), "share between 0 and 1"),
        (lambda: Block(share=1.5), "share between 0 and 1"),
        (lambda: Segments(mean=0.5), "a point at least"),
        (lambda: KeyPoints(tolerance=0), "above 0 metres"),
        (lambda: Last(points=0), "a point at least"),
        (lambda: KeepEvery(points=1), "one of two"),
        (lambda: Modality(what="colour"), "not each 'colour'"),
    ],
)
def test_options_that_hide_nothing_are_refused(make, said):
    with pytest.raises(BadInput, match=said):
        make()
