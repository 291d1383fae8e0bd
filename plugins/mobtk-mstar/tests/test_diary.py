"""The diary tokenizer: ranks of places, silence where nothing is wrong, places that follow."""

import pytest
import torch
from mobtk_mstar.diary import GIVEN, DiaryTokenizer

from mobtk.errors import BadInput
from mobtk.testing.fixtures import small_mapper, stays


def _tokenizer(steps=24, width=32, **options):
    torch.manual_seed(0)
    return DiaryTokenizer(small_mapper(), steps, width, codes=32, code_width=16, **options).eval()


@pytest.fixture(scope="module")
def learned():
    tokenizer, x = _tokenizer(places=6).train(), stays(small_mapper(), n=64)
    optimizer = torch.optim.Adam(tokenizer.codec.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        sum(tokenizer.loss(x).values()).backward()
        optimizer.step()
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


def test_it_learns_diaries(learned):
    x = stays(small_mapper(), n=64, seed=5)
    health = learned.health(x)
    assert health["accuracy"] > 0.9
    assert health["speaks_scale_0"] > health["speaks_scale_6"]
    assert torch.equal(learned.decode(learned.encode(x)), learned.decode(learned.encode(x)))


def test_a_token_speaks_only_where_something_is_wrong(learned):
    x = stays(small_mapper(), n=64, seed=5)
    codec = learned.codec
    ranks, _, _ = learned._ranked(x)
    with torch.no_grad():
        codes, logits, _ = codec.quantise(ranks)
    for k, of_scale in enumerate(codes):
        wrong = (logits[k].argmax(-1) != ranks).float()
        window = (getattr(codec, f"down_{k}") > 0).float()
        assert torch.equal(of_scale != codec.silent, wrong @ window.T > 0)


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
        ({"lengths": [1, 100]}, "1..24"),
        ({"places": 0}, "at least 1"),
        ({"width": GIVEN}, "too small"),
    ):
        with pytest.raises(BadInput, match=said):
            _tokenizer(**options)
