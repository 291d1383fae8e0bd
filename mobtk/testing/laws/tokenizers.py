"""Laws of tokenizers of sequences."""

from typing import Any

import torch
from torch import Tensor

from mobtk.contracts import (
    State,
    Tokenizer,
)
from mobtk.testing.fixtures import STEPS, WIDTH, small_mapper, stays
from mobtk.testing.laws.common import TOLERANCE, Law, options_have_defaults, same, seeded


def _tokenizer(kind: type[Tokenizer]) -> tuple[Any, Tensor]:
    mapper = small_mapper()
    return seeded(lambda: kind(mapper, STEPS, WIDTH)).eval(), stays(mapper)


def tokens_fit_the_schedule(kind: type[Tokenizer]) -> None:
    """There is a token for each place of the schedule, and decoding them gives a cell a step."""
    tokenizer, x = _tokenizer(kind)
    tokens = tokenizer.encode(x)
    assert tokens.shape[:2] == (len(x), tokenizer.schedule.n_tokens), f"tokens have shape {tuple(tokens.shape)}"
    assert tokenizer.inputs(tokens).shape == (*tokens.shape[:2], WIDTH), "inputs are not of the width asked for"
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == x.shape, f"decoded sequences have shape {tuple(decoded.shape)}, not {tuple(x.shape)}"
    assert decoded.min() >= 0 and decoded.max() < small_mapper().n_cells[0], "decoded cells do not exist"


def encoding_is_repeatable(kind: type[Tokenizer]) -> None:
    """In eval mode a sequence has the same tokens every time, alone or among others."""
    tokenizer, x = _tokenizer(kind)
    tokens = tokenizer.encode(x)
    assert torch.equal(tokens, tokenizer.encode(x)), "encoding twice gives other tokens"
    assert torch.equal(tokens[:1], tokenizer.encode(x[:1])), "a sequence alone gets other tokens than among others"


def exact_where_declared(kind: type[Tokenizer]) -> None:
    """decode(encode(x)) = x where it declares `exact`."""
    if kind.exact:
        tokenizer, x = _tokenizer(kind)
        assert torch.equal(tokenizer.decode(tokenizer.encode(x)), x), "declared exact, yet decode(encode(x)) is not x"


def the_condition_goes_where_declared(kind: type[Tokenizer]) -> None:
    """The channels it keeps free of the condition are some of its inputs, the groups it wants it in some of its groups."""
    tokenizer, _ = _tokenizer(kind)
    assert 0 <= tokenizer.given < WIDTH, f"it gives {tokenizer.given} of {WIDTH} channels"
    groups = range(tokenizer.schedule.n_groups)
    assert tokenizer.told <= set(groups), f"groups {sorted(tokenizer.told - set(groups))} that are told do not exist"


def inputs_do_not_see_ahead(kind: type[Tokenizer]) -> None:
    """Inputs of a group never change when tokens of that group or later ones change."""
    tokenizer, x = _tokenizer(kind)
    tokens, other = tokenizer.encode(x), tokenizer.encode(stays(small_mapper(), seed=1))
    before = tokenizer.inputs(tokens)
    for k, group in enumerate(tokenizer.schedule.groups()):
        mixed = torch.cat([tokens[:, : group.start], other[:, group.start :]], dim=1)
        same(before[:, group], tokenizer.inputs(mixed)[:, group], f"inputs of group {k} see its own or later tokens")


def next_inputs_are_the_inputs(kind: type[Tokenizer]) -> None:
    """One group at a time equals all at once."""
    tokenizer, x = _tokenizer(kind)
    tokens = tokenizer.encode(x)
    whole = tokenizer.inputs(tokens)
    state: State = {}
    for k, group in enumerate(tokenizer.schedule.groups()):
        same(tokenizer.next_inputs(tokens[:, : group.start], k, state), whole[:, group], f"next_inputs of group {k}")


def head_makes_tokens(kind: type[Tokenizer]) -> None:
    """The head's losses are one a token, and what it draws are tokens, the likeliest ones at temperature 0."""
    tokenizer, sequences = _tokenizer(kind)
    tokens = tokenizer.encode(sequences)
    x = tokenizer.inputs(tokens)
    hidden = seeded(lambda: torch.randn(x.shape))
    losses = tokenizer.head.loss(hidden, x, tokens)
    assert losses.shape == tokens.shape[:2], f"losses have shape {tuple(losses.shape)}"
    drawn = tokenizer.head.sample(hidden, x, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == tokens.shape and drawn.dtype == tokens.dtype, "the head draws something else than tokens"
    best = tokenizer.head.loss(hidden, x, tokenizer.head.sample(hidden, x, temperature=0))
    assert (best <= tokenizer.head.loss(hidden, x, drawn) + TOLERANCE).all(), "temperature 0 is not the likeliest"


def codec_learns_where_declared(kind: type[Tokenizer]) -> None:
    """A tokenizer that `learns` has a codec whose own loss reaches every parameter of it; others have none."""
    tokenizer, x = _tokenizer(kind)
    assert (tokenizer.codec is not None) == kind.learns, "`learns` is declared and there is no codec, or the reverse"
    if tokenizer.codec is not None:
        tokenizer.codec.train()
        loss = torch.stack(list(tokenizer.loss(x).values())).sum()
        if list(tokenizer.codec.parameters()):  # else it learns by averages alone
            loss.backward()
        still = [n for n, p in tokenizer.codec.named_parameters() if p.grad is None]
        assert not still, f"the codec's loss does not reach {', '.join(still)}"
    health = tokenizer.eval().health(x)
    assert 0 <= health["accuracy"] <= 1, "health has no accuracy between 0 and 1"


def tokenizer_is_restored(kind: type[Tokenizer]) -> None:
    """Saved and loaded, it answers the same."""
    tokenizer, x = _tokenizer(kind)
    torch.manual_seed(7)
    fresh: Any = kind(small_mapper(), STEPS, WIDTH).eval()
    fresh.load_state_dict(tokenizer.state_dict())
    assert torch.equal(fresh.encode(x), tokenizer.encode(x)), "loaded into a fresh copy, it makes other tokens"


LAWS: tuple[Law, ...] = (
    tokens_fit_the_schedule,
    encoding_is_repeatable,
    exact_where_declared,
    the_condition_goes_where_declared,
    inputs_do_not_see_ahead,
    next_inputs_are_the_inputs,
    head_makes_tokens,
    codec_learns_where_declared,
    tokenizer_is_restored,
    options_have_defaults,
)
