"""Positions of every kind, in both attention backbones."""

import pytest
import torch

from mobtk.backbones.gpt2 import GPT2
from mobtk.backbones.positions import KINDS
from mobtk.backbones.transformer import Transformer
from mobtk.contracts import Rows
from mobtk.errors import BadInput, PartMismatch
from mobtk.models.assemble import assemble
from mobtk.models.moe import MixtureOfExperts
from mobtk.recipe import AUTOREGRESSIVE
from mobtk.routers.input import InputRouter
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
    whole = model(x, schedule, rows=rows)
    for parts in ([slice(0, 6), slice(6, 9)], [slice(i, i + 1) for i in range(TOKENS)]):
        state = model.new_state(len(x), schedule)
        told = torch.cat([model(x[:, p], schedule, None, state, rows=_part(rows, p)) for p in parts], 1)
        torch.testing.assert_close(told, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("kind", BACKBONES)
def test_where_tokens_stand_matters_as_it_should(kind, how):
    """The same tokens in another order are another sequence, but for a model that knows no positions."""
    model, (x, rows), schedule = _model(kind, how), _given(), Schedule((TOKENS,))
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(2))
    mixed = model(x[:, order], schedule, rows=_part(rows, order))
    same = torch.allclose(mixed, model(x, schedule, rows=rows)[:, order], atol=1e-4)
    assert same == (how in ("none", "rotary-time", "rotary-place"))  # the last two move with their tokens


@pytest.mark.parametrize(("how", "what"), [("rotary-time", "times"), ("rotary-place", "places")])
@pytest.mark.parametrize("kind", BACKBONES)
def test_only_differences_of_moments_and_places_count(kind, how, what):
    model, (x, rows), schedule = _model(kind, how), _given(), Schedule.autoregressive(TOKENS)
    before = model(x, schedule, rows=rows)
    moved = Rows(**{"times": rows.times, "places": rows.places, what: getattr(rows, what) + 7})
    torch.testing.assert_close(model(x, schedule, rows=moved), before, atol=1e-4, rtol=1e-3)
    stretched = Rows(**{"times": rows.times, "places": rows.places, what: getattr(rows, what) * 2})
    assert not torch.allclose(model(x, schedule, rows=stretched), before, atol=1e-4)


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


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_cache_wants_sequences_of_one_length(kind):
    model, (x, _), schedule = _model(kind, "rotary"), _given(), Schedule.autoregressive(TOKENS)
    with pytest.raises(ValueError, match="no common cache"):
        model(x, schedule, None, model.new_state(3, schedule), rows=Rows(torch.tensor([9, 4, 1])))


@pytest.mark.parametrize("how", ["learned", "sinusoidal"])
def test_positions_begin_as_small_as_embeddings(how):
    for kind in BACKBONES:
        x = torch.zeros(1, TOKENS, 16)
        told, _ = kind(16, heads=2, positions=how).positions(x, Schedule((TOKENS,)), 0)
        assert 0.01 < told.std() < 0.04


def test_padding_does_not_choose_the_expert():
    """A mixture by the inputs of a first group that is padded."""
    torch.manual_seed(0)
    experts = [_model(GPT2, "rotary") for _ in range(3)]
    mixture = MixtureOfExperts(InputRouter(3, 16), experts, _model(GPT2, "rotary")).eval()
    x, schedule, lengths = torch.randn(8, TOKENS, 16), Schedule((TOKENS,)), torch.tensor([9, 3, 1, 4, 5, 2, 7, 6])
    padding = torch.arange(TOKENS) >= lengths[:, None]
    noisy = torch.where(padding[..., None], x + 5 * torch.randn_like(x), x)
    a, b = (mixture(given, schedule, rows=Rows(lengths)) for given in (x, noisy))
    torch.testing.assert_close(a[~padding], b[~padding], atol=1e-5, rtol=1e-4)
