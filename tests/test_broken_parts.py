"""A deliberately broken version of each built-in kind, and the law that catches it and names the fault."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mobtk.backbones.gpt2 import GPT2
from mobtk.backbones.mamba import Mamba
from mobtk.backbones.transformer import Transformer
from mobtk.contracts import Hidden, Routing, Rows
from mobtk.mappers.grid import Grid
from mobtk.mappers.h3 import H3
from mobtk.masks import Block
from mobtk.mixers.graph import GraphMixer
from mobtk.routers.entity import EntityRouter
from mobtk.routers.input import InputRouter
from mobtk.schedule import Schedule
from mobtk.testing import LAWS
from mobtk.tokenizers.cells import CellTokens
from mobtk.tokenizers.patches import Patches
from mobtk.tokenizers.points import Points
from mobtk.tokenizers.rvq import ResidualVQ

laws = SimpleNamespace(**{law.__name__: law for own in LAWS.values() for law in own})


def _broken(kind, **changes):
    """The same part with some methods or declarations replaced; a method gets the sound one first."""

    def method(change, sound):
        return lambda self, *a, **k: change(partial(sound, self), self, *a, **k)

    own = {name: method(c, getattr(kind, name)) if callable(c) else c for name, c in changes.items()}
    return type(f"Broken{kind.__name__}", (kind,), own)


def _noisy(sound, self, *a, **k):
    return F.dropout(sound(*a, **k), 0.1, training=True)


# backbones: x, schedule, cond, state


def _sees_all(sound, self, x, schedule, cond=None, state=None, **k):
    if state is not None:
        return sound(x, schedule, cond, state, **k)
    return sound(x, Schedule((schedule.n_tokens,)), cond, **k)


def _leaks_a_little(sound, self, x, schedule, cond=None, state=None, **k):
    y = sound(x, schedule, cond, state, **k)
    return y + 0.01 * x.mean(1, keepdim=True)


def _forgets(sound, self, x, schedule, cond=None, state=None, **k):
    return sound(x, schedule, cond, None if state is None else self.new_state(len(x), schedule), **k)


def _drops_padding(sound, self, x, schedule, cond=None, state=None, *, rows=None):
    return sound(x, schedule, cond, state, rows=Rows(times=rows.times, places=rows.places) if rows else None)


def _mixes_batch(sound, self, x, schedule, cond=None, state=None, **k):
    y = sound(x, schedule, cond, state, **k)
    return y - y.mean(0, keepdim=True)


# tokenizers


def _not_shifted(sound, self, tokens):
    return self.embed(tokens) + self.when


def _reads_all(sound, self, tokens):
    return sound(tokens) + tokens.float().mean(1)[:, None, None]


def _rounds(sound, self, tokens):
    return sound(tokens) // 2 * 2


def _random_tokens(sound, self, sequences):
    tokens = sound(sequences)
    return torch.where(torch.rand(tokens.shape) < 0.1, torch.zeros_like(tokens), tokens)


def _forgets_tokens(sound, self, tokens, k, state):
    return sound(torch.zeros_like(tokens), k, {})


def _forgets_what_runs(sound, self, tokens, k, state):
    if "running" in state:
        state["running"] = self.codec.silence(len(tokens))
    return sound(tokens, k, state)


# points


def _own_place(sound, self, paths, first, last, state):
    tokens = sound(paths, first, last, state)
    return replace(tokens, place=tokens.place + 0.5 * (paths.place[:, first:last] - tokens.place))


def _fresh_state(sound, self, paths, first, last, state):
    if first:
        ahead = replace(paths, place=paths.place - paths.place[:, first - 1 : first])
        return sound(ahead, first, last, {"done": first - 1, "sums": paths.place.new_zeros(len(paths.place), 2)})
    return sound(paths, first, last, state)


def _over_padding(sound, self, paths):
    return sound(replace(paths, lengths=torch.full_like(paths.lengths, paths.time.shape[1])))


def _looks(sound, self, paths):
    return sound(replace(paths, hidden_place=torch.zeros_like(paths.hidden_place)))


def _random_points(sound, self, paths):
    tokens = sound(paths)
    return replace(tokens, inputs=F.dropout(tokens.inputs, 0.1, training=True))


# mappers, routers, mixers, masks


def _everywhere(sound, self, lat, lon):
    return np.maximum(sound(lat, lon), 0)


def _random_cells(sound, self, lat, lon):
    cells = sound(lat, lon)
    return np.where(np.random.default_rng().random(len(cells)) < 0.1, np.roll(cells, 1), cells)


def _forgetful_config(sound, self):
    return {k: v for k, v in sound().items() if k != "size"} | {"origin": [0.0, 0.0]}


def _two_parents(sound, self, cells, level):
    parents = sound(cells, level)
    return np.where(np.asarray(cells) == 5, self.n_cells[1] - 1, parents) if level == 1 else parents


def _random_route(sound, self, entity, features):
    routing = sound(entity, features)
    return Routing(routing.weights * torch.rand(1), routing.experts, routing.loss)


def _detached(sound, self, entity, features):
    routing = sound(entity, features)
    return Routing(routing.weights.detach(), routing.experts, routing.loss)


def _unbalanced(sound, self, entity, features):
    routing = sound(entity, features)
    return Routing(routing.weights * 2, routing.experts, routing.loss)


def _over_windows(sound, self, x, entity):
    y = sound(x, entity)
    return y + y.mean(0, keepdim=True)


def _unseeded(sound, self, time, place, rng):
    return sound(time, place, np.random.default_rng())


def _hides_the_first(sound, self, time, place, rng):
    hidden = sound(time, place, rng)
    return Hidden(hidden.place | (np.arange(len(time)) == 0), hidden.time, hidden.absent)


def _asks_nothing(sound, self, time, place, rng):
    nothing = np.zeros(len(time), bool)
    return Hidden(nothing, nothing, nothing)


def _other_nodes(sound, self, history):
    return sound(history) + history.mean()


def _last_only(sound, self, history):
    return sound(history[:, -1:].expand_as(history))


CASES = [
    *(
        case
        for kind in (Transformer, GPT2, Mamba)
        for case in (
            ("leaks the future", kind, {"forward": _leaks_a_little}, laws.later_groups_change_nothing, "sees later groups"),
            ("forgets its state", kind, {"forward": _forgets}, laws.group_by_group_is_all_at_once, "group by group"),
            ("random in eval", kind, {"forward": _noisy}, laws.outputs_are_repeatable, "changes from call to call"),
            ("mixes the batch", kind, {"forward": _mixes_batch}, laws.sequences_are_apart, "sequences of a batch mix"),
        )
    ),
    ("sees all", Transformer, {"forward": _sees_all}, laws.later_groups_change_nothing, "sees later groups"),
    ("drops padding", Transformer, {"forward": _drops_padding}, laws.padding_changes_nothing, "padding is read"),
    ("drops padding", GPT2, {"forward": _drops_padding}, laws.padding_changes_nothing, "padding is read"),
    ("lies", GPT2, {"uses_condition": True}, laws.condition_steers_where_declared, "`uses_condition` does not say"),
    ("leaks the future", CellTokens, {"inputs": _not_shifted}, laws.inputs_do_not_see_ahead, "see its own or"),
    ("lies about exact", CellTokens, {"decode": _rounds}, laws.exact_where_declared, "declared exact, yet"),
    ("forgets its state", CellTokens, {"next_inputs": _forgets_tokens}, laws.next_inputs_are_the_inputs, "next_inputs"),
    ("random in eval", CellTokens, {"encode": _random_tokens}, laws.encoding_is_repeatable, "encoding twice"),
    ("leaks the future", ResidualVQ, {"inputs": _reads_all}, laws.inputs_do_not_see_ahead, "see its own or"),
    ("lies about exact", ResidualVQ, {"exact": True}, laws.exact_where_declared, "declared exact, yet"),
    ("lies about learning", ResidualVQ, {"learns": False}, laws.codec_learns_where_declared, "or the reverse"),
    ("forgets its state", ResidualVQ, {"next_inputs": _forgets_what_runs}, laws.next_inputs_are_the_inputs, "next_inputs"),
    ("random in eval", ResidualVQ, {"encode": _random_tokens}, laws.encoding_is_repeatable, "encoding twice"),
    ("leaks the future", Points, {"onward": _own_place}, laws.points_do_not_see_ahead, "looks ahead"),
    ("looks at what is hidden", Points, {"at_once": _looks}, laws.hidden_points_change_nothing, "look at what is"),
    ("forgets its state", Points, {"onward": _fresh_state}, laws.onward_is_onward, "tokens that come later differ"),
    ("drops padding", Points, {"at_once": _over_padding}, laws.paths_are_apart, "or their padding mix"),
    ("random in eval", Points, {"at_once": _random_points}, laws.point_tokens_are_repeatable, "change from call to call"),
    ("reads other nodes", Patches, {"forward": _other_nodes}, laws.nodes_are_apart, "change with other nodes"),
    ("forgets the past", Patches, {"forward": _last_only}, laws.nodes_are_apart, "of the past changes no token"),
    ("random in eval", Patches, {"forward": _noisy}, laws.field_tokens_are_repeatable, "change from call to call"),
    ("has no outside", Grid, {"encode": _everywhere}, laws.outside_is_minus_one, "got cells .* not -1"),
    ("random", Grid, {"encode": _random_cells}, laws.cells_are_repeatable, "mapping twice gives other cells"),
    ("forgets its state", Grid, {"config": _forgetful_config}, laws.rebuilt_from_its_config, "the rebuilt mapper"),
    ("lies about levels", Grid, {"nested": False}, laws.levels_are_nested, "not as declared by `nested`"),
    ("levels do not nest", H3, {"coarsen": _two_parents}, laws.levels_are_nested, "has two parents"),
    ("random in eval", InputRouter, {"forward": _random_route}, laws.routing_is_repeatable, "changes from call to call"),
    ("does not learn", InputRouter, {"forward": _detached}, laws.router_learns, "does not require grad"),
    ("weights of any sum", InputRouter, {"forward": _unbalanced}, laws.weights_sum_to_one, "do not sum to 1"),
    ("lies about its entity", EntityRouter, {"needs_entity": False}, laws.entity_is_needed_as_declared, "does not declare"),
    ("random in eval", GraphMixer, {"forward": _noisy}, laws.mixing_is_repeatable, "changes from call to call"),
    ("mixes windows", GraphMixer, {"forward": _over_windows}, laws.tokens_are_mixed_apart, "windows of a batch mix"),
    ("lies about its graph", GraphMixer, {"needs_graph": False}, laws.graph_is_needed_as_declared, "does not declare"),
    ("random", Block, {"__call__": _unseeded}, laws.masks_are_repeatable, "same random numbers hide other"),
    ("hides the first", Block, {"__call__": _hides_the_first}, laws.masks_ask_something, "the first is not shown"),
    ("asks nothing", Block, {"__call__": _asks_nothing}, laws.masks_ask_something, "nothing is hidden"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "changes", "law", "told"), [pytest.param(*case[1:], id=f"{case[1].__name__}: {case[0]}") for case in CASES]
)
def test_the_law_names_the_fault(kind, changes, law, told):
    law(kind)  # which the sound one keeps
    with pytest.raises((AssertionError, RuntimeError), match=told):
        law(_broken(kind, **changes))
