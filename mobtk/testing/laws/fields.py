"""Laws of what reads fields: their tokenizers, and mixers."""

from typing import Any

import torch
from torch import Tensor

from mobtk.contracts import (
    FieldTokenizer,
    Mixer,
)
from mobtk.errors import BadInput
from mobtk.testing.fixtures import STEPS, WIDTH
from mobtk.testing.laws.common import Law, all_learn, noise, options_have_defaults, same, seeded

NODES, CHANNELS, ENTITY = 5, 2, 4


def _field_tokenizer(kind: type[FieldTokenizer]) -> tuple[Any, Tensor]:
    history = torch.randn(3, STEPS, NODES, CHANNELS, generator=torch.Generator().manual_seed(1))
    return seeded(lambda: kind(STEPS, CHANNELS, WIDTH)).eval(), history


def tokens_of_every_node(kind: type[FieldTokenizer]) -> None:
    """Each node has a token for each place of the schedule, which is one group; scales and their width make the width."""
    tokenizer, history = _field_tokenizer(kind)
    assert tokenizer.schedule.n_groups == 1, f"the past is known at once, yet the schedule is {tokenizer.schedule.lengths}"
    expected = (3, tokenizer.schedule.n_tokens, NODES, WIDTH // tokenizer.scales, tokenizer.scales)
    assert tokenizer.scales * expected[3] == WIDTH, f"{tokenizer.scales} scales do not divide the width"
    assert tokenizer(history).shape == expected, f"tokens have shape {tuple(tokenizer(history).shape)}, not {expected}"


def nodes_are_apart(kind: type[FieldTokenizer]) -> None:
    """The tokens of a node depend on its own past, all of it, and on nothing else."""
    tokenizer, history = _field_tokenizer(kind)
    before = tokenizer(history)
    others = history.clone()
    others[:, :, 1:] += noise(others[:, :, 1:])
    same(before[:, :, 0], tokenizer(others)[:, :, 0], "the tokens of a node change with other nodes")
    for step in range(STEPS):
        mine = history.clone()
        mine[:, step] += noise(mine[:, step])
        assert not torch.equal(before, tokenizer(mine)), f"step {step} of the past changes no token"


def field_tokens_are_repeatable(kind: type[FieldTokenizer]) -> None:
    """In eval mode a history has the same tokens every time."""
    tokenizer, history = _field_tokenizer(kind)
    same(tokenizer(history), tokenizer(history), "the tokens change from call to call")


def windows_are_apart(kind: type[FieldTokenizer]) -> None:
    """A window alone gets the tokens it gets among others."""
    tokenizer, history = _field_tokenizer(kind)
    same(tokenizer(history)[:1], tokenizer(history[:1]), "windows of a batch mix")


def field_tokenizer_learns(kind: type[FieldTokenizer]) -> None:
    """Tokens carry a finite gradient to every parameter."""
    tokenizer, history = _field_tokenizer(kind)
    tokenizer.train()(history).square().sum().backward()
    all_learn(tokenizer)


def field_tokenizer_is_restored(kind: type[FieldTokenizer]) -> None:
    """Saved and loaded, it answers the same."""
    tokenizer, history = _field_tokenizer(kind)
    torch.manual_seed(7)
    fresh: Any = kind(STEPS, CHANNELS, WIDTH).eval()
    fresh.load_state_dict(tokenizer.state_dict())
    same(fresh(history), tokenizer(history), "loaded into a fresh copy, it makes other tokens")


def _mixer_parts(kind: type[Mixer]) -> tuple[Any, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    graph = torch.rand(NODES, NODES, generator=random).fill_diagonal_(0)
    x = torch.randn(2, 3, NODES, WIDTH // 2, 2, generator=random)
    entity = torch.randn(NODES, ENTITY, generator=random)
    return seeded(lambda: kind(graph, WIDTH // 2, 2, ENTITY)).eval(), x, entity


def mixing_keeps_the_shape(kind: type[Mixer]) -> None:
    """What it adds has the shape of what it was given, for one scale and for several."""
    mixer, x, entity = _mixer_parts(kind)
    assert mixer(x, entity).shape == x.shape, f"what it adds has shape {tuple(mixer(x, entity).shape)}"
    single = seeded(lambda: kind(torch.ones(NODES, NODES), WIDTH, 1, ENTITY))
    assert single(x.reshape(2, 3, NODES, WIDTH, 1), entity).shape == (2, 3, NODES, WIDTH, 1), "one scale changes the shape"


def mixing_is_repeatable(kind: type[Mixer]) -> None:
    """In eval mode it adds the same every time."""
    mixer, x, entity = _mixer_parts(kind)
    same(mixer(x, entity), mixer(x, entity), "what it adds changes from call to call")


def tokens_are_mixed_apart(kind: type[Mixer]) -> None:
    """It mixes over nodes and scales, not over tokens or windows."""
    mixer, x, entity = _mixer_parts(kind)
    whole = mixer(x, entity)
    same(whole[:1], mixer(x[:1], entity), "windows of a batch mix")
    same(whole[:, :1], mixer(x[:, :1], entity), "tokens mix")


def graph_is_needed_as_declared(kind: type[Mixer]) -> None:
    """It is built without a graph exactly where it does not declare `needs_graph`."""
    try:
        kind(None, WIDTH // 2, 2, ENTITY)
    except (BadInput, ValueError, TypeError, AttributeError):
        assert kind.needs_graph, "it fails without a graph, which it does not declare to need"
    else:
        assert not kind.needs_graph, "it declares to need a graph and does without"


def mixer_learns(kind: type[Mixer]) -> None:
    """What it adds carries a finite gradient to every parameter."""
    mixer, x, entity = _mixer_parts(kind)
    if list(mixer.parameters()):
        (mixer.train()(x, entity) * noise(x)).sum().backward()
        all_learn(mixer)


def mixer_is_restored(kind: type[Mixer]) -> None:
    """Saved and loaded, it answers the same."""
    mixer, x, entity = _mixer_parts(kind)
    torch.manual_seed(7)
    graph = torch.rand(NODES, NODES, generator=torch.Generator().manual_seed(1)).fill_diagonal_(0)
    fresh: Any = kind(graph, WIDTH // 2, 2, ENTITY).eval()
    fresh.load_state_dict(mixer.state_dict())
    same(fresh(x, entity), mixer(x, entity), "loaded into a fresh copy, it answers otherwise")


FIELD_TOKENIZER_LAWS: tuple[Law, ...] = (
    tokens_of_every_node,
    nodes_are_apart,
    field_tokens_are_repeatable,
    windows_are_apart,
    field_tokenizer_learns,
    field_tokenizer_is_restored,
    options_have_defaults,
)
MIXER_LAWS: tuple[Law, ...] = (
    mixing_keeps_the_shape,
    mixing_is_repeatable,
    tokens_are_mixed_apart,
    graph_is_needed_as_declared,
    mixer_learns,
    mixer_is_restored,
    options_have_defaults,
)
