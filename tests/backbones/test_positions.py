"""Positions of every kind, in both attention backbones."""

import pytest
import torch

from mobtk.backbones.gpt2 import GPT2
from mobtk.backbones.positions import KINDS
from mobtk.backbones.transformer import Transformer
from mobtk.contracts import Rows
from mobtk.errors import BadInput, PartMismatch
from mobtk.models.assemble import assemble
from mobtk.recipe import AUTOREGRESSIVE
from mobtk.schedule import Schedule
from mobtk.testing.fixtures import small_mapper

BACKBONES = [Transformer, GPT2]
TOKENS = 9


def _model(kind, how, **options):
    torch.manual_seed(0)
    model = kind(16, depth=2, heads=2, positions=how, **options).eval()
    with torch.no_grad():
        for p in model.parameters():  # so that attention looks somewhere
            p.add_(0.3 * torch.randn(p.shape))
    return model


def _given(batch=3):
    torch.manual_seed(1)
    rows = Rows(times=torch.rand(batch, TOKENS).cumsum(1) * 20, places=torch.randn(batch, TOKENS, 2).cumsum(1) * 5)
    return torch.randn(batch, TOKENS, 16), rows


def _part(rows, where):
    return Rows(times=rows.times[:, where], places=rows.places[:, where])


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("kind", BACKBONES)
def test_token_by_token_is_all_at_once(kind, how):
    model, (x, rows), schedule = _model(kind, how), _given(), Schedule.autoregressive(TOKENS)
    whole = model(x, schedule, None, None, rows)
    for parts in ([slice(0, 6), slice(6, 9)], [slice(i, i + 1) for i in range(TOKENS)]):
        state = model.new_state(len(x), schedule)
        told = torch.cat([model(x[:, p], schedule, None, state, _part(rows, p)) for p in parts], 1)
        torch.testing.assert_close(told, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("kind", BACKBONES)
def test_where_tokens_stand_matters_as_it_should(kind, how):
    """The same tokens in another order are another sequence, but for a model that knows no positions."""
    model, (x, rows), schedule = _model(kind, how), _given(), Schedule((TOKENS,))
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(2))
    mixed = model(x[:, order], schedule, None, None, _part(rows, order))
    same = torch.allclose(mixed, model(x, schedule, None, None, rows)[:, order], atol=1e-4)
    assert same == (how in ("none", "rotary-time", "rotary-place"))  # the last two move with their tokens


@pytest.mark.parametrize(("how", "what"), [("rotary-time", "times"), ("rotary-place", "places")])
@pytest.mark.parametrize("kind", BACKBONES)
def test_only_differences_of_moments_and_places_count(kind, how, what):
    model, (x, rows), schedule = _model(kind, how), _given(), Schedule.autoregressive(TOKENS)
    before = model(x, schedule, None, None, rows)
    moved = Rows(**{"times": rows.times, "places": rows.places, what: getattr(rows, what) + 7})
    torch.testing.assert_close(model(x, schedule, None, None, moved), before, atol=1e-4, rtol=1e-3)
    stretched = Rows(**{"times": rows.times, "places": rows.places, what: getattr(rows, what) * 2})
    assert not torch.allclose(model(x, schedule, None, None, stretched), before, atol=1e-4)


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_table_refuses_what_is_longer_than_it(kind):
    x = torch.randn(1, TOKENS, 16)
    with pytest.raises(BadInput, match="a table of 8 positions has none for 9 tokens"):
        _model(kind, "learned", longest=8)(x, Schedule((TOKENS,)))
    assert _model(kind, "learned", longest=8).max_tokens == 8
    assert _model(kind, "rotary").max_tokens is None


def test_what_cannot_be_is_told():
    with pytest.raises(BadInput, match="positions are one of none, learned"):
        Transformer(16, positions="absolute")
    with pytest.raises(BadInput, match="multiple of 4"):
        GPT2(12, heads=2, positions="rotary-place")
    with pytest.raises(BadInput, match="want the moment of each token"):
        _model(GPT2, "rotary-time")(torch.randn(1, TOKENS, 16), Schedule((TOKENS,)))
    recipe = AUTOREGRESSIVE.change("backbone.positions", "rotary-time").change("traits", [])
    with pytest.raises(PartMismatch, match="reads the moment or place of each token"):
        assemble(recipe, small_mapper(), 24, {})
