import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobtk import Schedule

lengths = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(lengths)
def test_mask_is_own_group_and_earlier_ones(lengths):
    schedule = Schedule(tuple(lengths))
    group = schedule.group_of().tolist()
    mask = schedule.mask()
    for p in range(schedule.n_tokens):
        for q in range(schedule.n_tokens):
            assert mask[p, q].item() == (group[p] >= group[q])


@given(lengths)
def test_groups_tile_the_tokens(lengths):
    schedule = Schedule(tuple(lengths))
    covered = [i for g in schedule.groups() for i in range(g.start, g.stop)]
    assert covered == list(range(schedule.n_tokens))
    assert schedule.n_groups == len(lengths)


def test_mstar_has_470_tokens_in_8_passes_and_84455_masked_pairs():
    schedule = Schedule.coarse_to_fine([1, 7, 14, 28, 56, 84, 112, 168], 168)
    assert (schedule.n_tokens, schedule.n_groups) == (470, 8)
    assert (~schedule.mask()).sum().item() == 84_455


def test_autoregressive_mask_is_causal():
    schedule = Schedule.autoregressive(5)
    assert schedule.is_autoregressive
    assert torch.equal(schedule.mask(), torch.ones(5, 5).tril().bool())


def test_coarse_tokens_stand_at_the_middle_of_their_steps():
    schedule = Schedule.coarse_to_fine([1, 2, 4], 4)
    assert schedule.times == (1.5, 0.5, 2.5, 0.0, 1.0, 2.0, 3.0)


def test_masked_schedule_has_the_known_first():
    schedule = Schedule.masked([True, False, False, True, False], passes=2)
    assert schedule.lengths == (2, 2, 1)
    assert schedule.times == (0.0, 3.0, 1.0, 4.0, 2.0)
    assert Schedule.masked([False, False]).lengths == (2,)


def test_each_pass_of_a_masked_schedule_stands_amid_those_before():
    assert Schedule.masked([False] * 8, passes=8).times == (0.0, 4.0, 2.0, 6.0, 1.0, 5.0, 3.0, 7.0)


@pytest.mark.parametrize(
    ("schedule", "family"),
    [
        (Schedule.autoregressive(5), "autoregressive"),
        (Schedule.coarse_to_fine([1, 2, 4], 4), "coarse to fine"),
        (Schedule.coarse_to_fine([1, 4], 4), "coarse to fine"),
        (Schedule.masked([False] * 6, passes=3), "masked"),
        (Schedule.masked([True, False, True], passes=1), "masked"),
        (Schedule.masked([False] * 4), "at once"),
        (Schedule.coarse_to_fine([4], 4), "at once"),
        (Schedule.masked([False] * 4, passes=4), "masked"),
    ],
)
def test_families(schedule, family):
    assert schedule.family == family


@pytest.mark.parametrize("bad", [(), (1, 0), (-1,)])
def test_empty_groups_are_refused(bad):
    with pytest.raises(ValueError, match="at least one token"):
        Schedule(bad)


def test_times_must_be_one_a_token():
    with pytest.raises(ValueError, match="2 times for 3 tokens"):
        Schedule((1, 2), (0.0, 1.0))
