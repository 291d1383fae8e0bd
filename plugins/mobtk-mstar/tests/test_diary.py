"""The diary tokenizer: ranks of places, silence where nothing is wrong, places that follow."""

import pytest
import torch
from mobtk_mstar.diary import GIVEN, DiaryTokenizer, dividing_lengths

from mobtk.backbones.transformer import Transformer
from mobtk.errors import BadInput
from mobtk.models.generator import Generator
from mobtk.testing.fixtures import small_mapper, stays


def _tokenizer(steps=24, width=32, **options):
    torch.manual_seed(0)
    return DiaryTokenizer(small_mapper(), steps, width, codes=32, **options).eval()


@pytest.fixture(scope="module")
def learned():
    tokenizer, x = _tokenizer(places=6).train(), stays(small_mapper(), n=64)
    for _ in range(50):
        tokenizer.loss(x)
    return tokenizer.eval()


def test_places_are_ranked_by_time_spent_then_by_first_visit():
    tokenizer = _tokenizer(steps=8, places=4)
    ranks, places, known = tokenizer._ranked(torch.tensor([[5, 5, 3, 5, 7, 3, 9, 9], [2] * 8]))
    assert ranks.tolist() == [[0, 0, 1, 0, 3, 1, 2, 2], [0] * 8]
    assert places[0].tolist() == [5, 3, 9, 7] and places[1, 0] == 2
    assert known.tolist() == [[True] * 4, [True, False, False, False]]


def test_a_place_too_many_counts_as_the_nearest_of_the_others():
    mapper = small_mapper()
    tokenizer = _tokenizer(steps=8, places=2)
    away = (tokenizer.xy - tokenizer.xy[0]).norm(dim=-1)
    near, far = away.argsort()[[1, -1]].tolist()
    ranks, places, _ = tokenizer._ranked(torch.tensor([[0, 0, 0, 0, far, far, far, near]]))
    assert places.tolist() == [[0, far]] and ranks[0, -1] == 0
    assert mapper.n_cells[0] == len(tokenizer.xy)
    # with its hours the other place is visited more often now
    x = torch.tensor([[0, 0, 0, far, far, near, near, far]])
    x[0, 5:7] = (tokenizer.xy - tokenizer.xy[far]).norm(dim=-1).argsort()[1:3]
    ranks, places, _ = tokenizer._ranked(x)
    assert places.tolist() == [[far, 0]] and ranks.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert tokenizer.decode(tokenizer.encode(x)).tolist() == [[0] * 3 + [far] * 5]


@pytest.mark.parametrize("steps", [24, 168, 48, 96, 7, 13])
def test_scales_divide_any_number_of_steps(steps):
    lengths = dividing_lengths(steps)
    assert lengths[-1] == steps and all(steps % n == 0 for n in lengths)


def test_it_is_exact_up_to_the_places_it_can_have(learned):
    x = stays(small_mapper(), n=64, seed=5)
    few = torch.tensor([len(row.unique()) <= 6 for row in x])
    assert few.sum() > 10 and torch.equal(learned.decode(learned.encode(x[few])), x[few])
    fresh = _tokenizer(places=6)
    assert torch.equal(fresh.decode(fresh.encode(x[few])), x[few]), "before anything is learned, too"


def test_patterns_leave_less_to_say(learned):
    x = stays(small_mapper(), n=64)
    fresh, health = _tokenizer(places=6).health(x), learned.health(x)
    assert health["speaks_scale_2"] < 0.7 * fresh["speaks_scale_2"]
    assert learned.loss(x)["wrong"] < _tokenizer(places=6).loss(x)["wrong"]


def test_a_token_speaks_only_where_it_makes_something_better(learned):
    x = stays(small_mapper(), n=64, seed=5)
    codec = learned.codec
    ranks, _, _ = learned._ranked(x)
    codes, said = codec.quantise(ranks)
    for k, of_scale in enumerate(codes):
        before, after = ((one != ranks).unflatten(1, (codec.lengths[k], -1)).sum(-1) for one in said[k : k + 2])
        assert ((after < before) == (of_scale != codec.silent)).all() and (after <= before).all()


def test_places_the_diary_does_not_speak_of_cost_nothing(learned):
    x = torch.full((1, 24), 3)
    tokens = learned.encode(x)
    inputs = learned.inputs(tokens)
    hidden = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
    unused = inputs[0, -learned.places :, 1] < 0.5
    losses = learned.head.loss(hidden, inputs, tokens)[0, -learned.places :]
    assert unused.any() and (losses[unused] == 0).all() and (losses[~unused] > 0).all()
    drawn = learned.head.sample(hidden, inputs)[0, -learned.places :]
    assert (drawn[unused] == 0).all()


def test_options_that_cannot_be_are_refused():
    for options, said in (
        ({"lengths": [8, 4, 24]}, "must grow"),
        ({"lengths": [1, 5, 24]}, r"must grow, divide 24.*try \[1, 4, 24\]"),
        ({"places": 0}, "at least 1"),
        ({"width": GIVEN}, "too small"),
    ):
        with pytest.raises(BadInput, match=said):
            _tokenizer(**options)


def test_ranks_that_a_drawn_diary_leaves_out_are_closed_up(learned):
    """Hours drawn at ranks 4, 4, 2: the most visited place is the first, and none is asked for that nobody visits."""
    tokens = learned.encode(torch.full((1, 24), 3))
    diary = tokens[:, : learned.diary_tokens]
    diary[:] = learned.codec.silent
    diary[0, -24:] = torch.tensor([4] * 16 + [2] * 8)
    inputs = learned.inputs(tokens)[0, -learned.places :]
    assert (inputs[:, 1] > 0.5).tolist() == [True, True] + [False] * (learned.places - 2)
    tokens[0, -learned.places :] = torch.tensor([7, 9, 0, 0, 0, 0])
    assert learned.decode(tokens).tolist() == [[7] * 16 + [9] * 8]


def test_a_code_beyond_the_ranks_says_nothing(learned):
    tokens = learned.encode(torch.full((1, 24), 3))
    other = tokens.clone()
    other[0, learned.diary_tokens - 5] = learned.codec.silent - 1
    assert torch.equal(learned.decode(tokens), learned.decode(other))


def test_generated_weeks_go_to_as_many_places_as_their_diary_speaks_of(learned):
    torch.manual_seed(0)
    model = Generator(learned, Transformer(32, depth=1, heads=2)).eval()
    cells = model.generate(None, 50, generator=torch.Generator().manual_seed(0))
    assert cells.shape == (50, 24) and cells.min() >= 0 and cells.max() < small_mapper().n_cells[0]
    assert max(len(row.unique()) for row in cells) > 1
