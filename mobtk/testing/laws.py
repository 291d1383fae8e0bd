"""The laws: plain functions, a sentence each, that hold a part to its contract and to what it declares.

A law takes the class of a part, builds it with its default options on small inputs, and fails by an
``AssertionError`` whose message names the fault.
"""

import inspect
import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from mobtk.backbones.transformer import Transformer
from mobtk.contracts import (
    Backbone,
    FieldTokenizer,
    Hidden,
    Mask,
    Mixer,
    Paths,
    PointTokenizer,
    PointTokens,
    Router,
    Rows,
    SpatialMapper,
    State,
    Tokenizer,
)
from mobtk.data.trajectories import Trajectory
from mobtk.errors import BadInput, MobtkError, first_line
from mobtk.geo import from_local
from mobtk.inventory import load
from mobtk.models.assemble import check, load_part
from mobtk.models.completer import Completer
from mobtk.models.paths import collate, nothing_hidden
from mobtk.plugins import own_trace, registry
from mobtk.recipe import Recipe
from mobtk.registry import Entry
from mobtk.schedule import Schedule
from mobtk.testing.fixtures import SCHEDULES, STEPS, WIDTH, points, small_mapper, stays, walks

Law = Callable[[Any], None]
TOLERANCE = 1e-4
OURS = str(Path(__file__).parents[1])
LIBRARIES = tuple(str(Path(str(library.__file__)).parent) for library in (torch, np))


def _same(a: Tensor, b: Tensor, message: str) -> None:
    worst = (a - b).abs().max().item() if a.numel() else 0.0
    assert a.shape == b.shape and worst <= TOLERANCE, f"{message} (largest difference {worst:.2g})"


def _seeded(maker: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker()


# ------------------------------------------------------------------------------------------------ spatial mappers


def _mapper(kind: type[SpatialMapper]) -> SpatialMapper:
    return kind.fit(*points(), **kind.example_options)


def centres_lie_in_their_cells(kind: type[SpatialMapper]) -> None:
    """The centre of every finest cell is in that cell."""
    mapper = _mapper(kind)
    cells = np.arange(mapper.n_cells[0])
    assert (mapper.encode(*mapper.decode(cells)) == cells).all(), "the centre of some cell is in another cell"


def fitted_points_are_on_the_map(kind: type[SpatialMapper]) -> None:
    """Every point a mapper was fitted to has a cell, and ids are whole numbers from 0 to n - 1."""
    mapper = _mapper(kind)
    cells = mapper.encode(*points())
    assert cells.dtype == np.int64, f"ids are {cells.dtype}, not int64"
    assert cells.min() >= 0 and cells.max() < mapper.n_cells[0], "some point of the fit has no cell, or an id too large"


def outside_is_minus_one(kind: type[SpatialMapper]) -> None:
    """A point far away, and a missing one, are in no cell."""
    cells = _mapper(kind).encode([-45.0, np.nan, 39.94], [10.0, 116.35, np.nan])
    assert (cells == -1).all(), f"points off the map or missing got cells {cells.tolist()}, not -1"


def levels_are_nested(kind: type[SpatialMapper]) -> None:
    """Level 0 is the finest, levels do not grow, every coarser cell has a child; -1 stays -1; as declared."""
    mapper = _mapper(kind)
    finest = np.arange(mapper.n_cells[0])
    assert (mapper.coarsen(finest, 0) == finest).all(), "level 0 is not the finest"
    assert list(mapper.n_cells) == sorted(mapper.n_cells, reverse=True), "a coarser level has more cells"
    assert (len(mapper.n_cells) > 1) == mapper.nested, "the number of levels is not as declared by `nested`"
    above: np.ndarray | None = None
    for level in reversed(range(len(mapper.n_cells))):
        parents = mapper.coarsen(finest, level)
        assert set(parents.tolist()) == set(range(mapper.n_cells[level])), f"level {level} has cells without children"
        if above is not None:
            pairs = set(zip(parents.tolist(), above.tolist(), strict=True))
            assert len(pairs) == mapper.n_cells[level], f"a cell of level {level} has two parents"
        above = parents
        assert mapper.coarsen(np.array([-1]), level)[0] == -1, "outside does not stay outside"


def geometry_holds_the_centres(kind: type[SpatialMapper]) -> None:
    """At each level there is a polygon a cell, in order, in EPSG:4326; finest polygons hold their centres."""
    import shapely

    mapper = _mapper(kind)
    for level, n in enumerate(mapper.n_cells):
        frame = mapper.geometry(level)
        assert len(frame) == n, f"level {level} has {len(frame)} polygons for {n} cells"
        assert frame.crs is not None and frame.crs.to_epsg() == 4326, "polygons are not in EPSG:4326"
    lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
    inside = shapely.intersects(mapper.geometry().geometry.to_numpy(), shapely.points(lon, lat))
    assert inside.all(), "the polygon of some cell does not hold its centre"


def rebuilt_from_its_config(kind: type[SpatialMapper]) -> None:
    """Written as JSON and built again, it gives the same cells."""
    mapper = _mapper(kind)
    again = kind(**json.loads(json.dumps(mapper.config())))
    assert again.n_cells == mapper.n_cells, "the rebuilt mapper has other cells"
    assert (again.encode(*points()) == mapper.encode(*points())).all(), "the rebuilt mapper maps otherwise"


def cells_are_repeatable(kind: type[SpatialMapper]) -> None:
    """A point has the same cell every time, alone or among others."""
    mapper, (lat, lon) = _mapper(kind), points()
    cells = mapper.encode(lat, lon)
    assert (cells == mapper.encode(lat, lon)).all(), "mapping twice gives other cells"
    assert (cells[:5] == np.concatenate([mapper.encode(lat[i : i + 1], lon[i : i + 1]) for i in range(5)])).all(), (
        "a point alone gets another cell than among others"
    )


# ----------------------------------------------------------------------------------------------------- tokenizers


def _tokenizer(kind: type[Tokenizer]) -> tuple[Any, Tensor]:
    mapper = small_mapper()
    return _seeded(lambda: kind(mapper, STEPS, WIDTH)).eval(), stays(mapper)


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
        _same(before[:, group], tokenizer.inputs(mixed)[:, group], f"inputs of group {k} see its own or later tokens")


def next_inputs_are_the_inputs(kind: type[Tokenizer]) -> None:
    """One group at a time equals all at once."""
    tokenizer, x = _tokenizer(kind)
    tokens = tokenizer.encode(x)
    whole = tokenizer.inputs(tokens)
    state: State = {}
    for k, group in enumerate(tokenizer.schedule.groups()):
        _same(tokenizer.next_inputs(tokens[:, : group.start], k, state), whole[:, group], f"next_inputs of group {k}")


def head_makes_tokens(kind: type[Tokenizer]) -> None:
    """The head's losses are one a token, and what it draws are tokens, the likeliest ones at temperature 0."""
    tokenizer, sequences = _tokenizer(kind)
    tokens = tokenizer.encode(sequences)
    x = tokenizer.inputs(tokens)
    hidden = _seeded(lambda: torch.randn(x.shape))
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


# ------------------------------------------------------------------------------------------------------ backbones


def _backbone(kind: type[Backbone]) -> Any:
    backbone = _seeded(lambda: kind(WIDTH)).eval()
    with torch.no_grad():
        for p in backbone.parameters():  # away from the start, where some branches are zero
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return backbone


def _input(length: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, WIDTH, generator=random), torch.randn(batch, WIDTH, generator=random)


def _noise(x: Tensor) -> Tensor:
    """A change that no normalisation takes out again."""
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(2))


def shape_is_kept(kind: type[Backbone]) -> None:
    """The output has the shape of the input, for every schedule, with and without a condition."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = _input(schedule.n_tokens)
        for c in (None, cond):
            assert backbone(x, schedule, c).shape == x.shape, "the output has another shape"


def outputs_are_repeatable(kind: type[Backbone]) -> None:
    """In eval mode a sequence has the same output every time."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = _input(schedule.n_tokens)
        _same(backbone(x, schedule, cond), backbone(x, schedule, cond), "the output changes from call to call")


def later_groups_change_nothing(kind: type[Backbone]) -> None:
    """Outputs of a group never change when later groups change."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = _input(schedule.n_tokens)
        before = backbone(x, schedule, cond)
        for k, group in enumerate(schedule.groups()):
            changed = x.clone()
            changed[:, group.stop :] += _noise(changed[:, group.stop :])
            after = backbone(changed, schedule, cond)
            _same(before[:, : group.stop], after[:, : group.stop], f"group {k} of {schedule.lengths} sees later groups")


def earlier_tokens_matter(kind: type[Backbone]) -> None:
    """The last token's output depends on the input of some token before it."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = _input(schedule.n_tokens)
        changed = x.clone()
        changed[:, :-1] += _noise(changed[:, :-1])
        difference = (backbone(x, schedule, cond) - backbone(changed, schedule, cond))[:, -1].abs().max().item()
        assert difference > 0, f"nothing is mixed under schedule {schedule.lengths}"


def group_by_group_is_all_at_once(kind: type[Backbone]) -> None:
    """One group at a time, with its state, equals all at once."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = _input(schedule.n_tokens)
        for c in (None, cond):
            state = backbone.new_state(len(x), schedule)
            parts = [backbone(x[:, group], schedule, c, state) for group in schedule.groups()]
            _same(
                torch.cat(parts, 1),
                backbone(x, schedule, c),
                f"group by group differs under {schedule.lengths}: `state` does not hold all that came before",
            )


def groups_may_come_together(kind: type[Backbone]) -> None:
    """Several groups at a time, with a state, equal all at once."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = _input(schedule.n_tokens)
        state = backbone.new_state(len(x), schedule)
        cut = schedule.starts[-1]
        parts = [backbone(part, schedule, cond, state) for part in (x[:, :cut], x[:, cut:]) if part.shape[1]]
        _same(torch.cat(parts, 1), backbone(x, schedule, cond), f"several groups at once differ under {schedule.lengths}")


def padding_changes_nothing(kind: type[Backbone]) -> None:
    """Where it declares `takes_rows`, what stands after the length of a sequence changes nothing before it."""
    if not kind.takes_rows:
        return
    backbone: Any = _backbone(kind)
    for schedule in (Schedule.autoregressive(9), Schedule((9,))):
        x, cond = _input(9)
        lengths = torch.tensor([9, 4, 1])
        padding = torch.arange(9) >= lengths[:, None]
        noisy = torch.where(padding[..., None], x + 3 * _noise(x), x)
        a, b = (backbone(given, schedule, cond, rows=Rows(lengths)) for given in (x, noisy))
        _same(a[~padding], b[~padding], f"padding is read under {schedule.lengths}")
        short = Schedule.autoregressive(4) if schedule.is_autoregressive else Schedule((4,))
        _same(a[1:2, :4], backbone(x[1:2, :4], short, cond[1:2]), "a padded sequence gets another output than alone")


def sequences_are_apart(kind: type[Backbone]) -> None:
    """A sequence alone gets the output it gets among others."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = _input(schedule.n_tokens)
        _same(backbone(x, schedule, cond)[:1], backbone(x[:1], schedule, cond[:1]), "sequences of a batch mix")


def condition_steers_where_declared(kind: type[Backbone]) -> None:
    """The condition changes the output where it declares `uses_condition`, and not where it does not."""
    backbone = _backbone(kind)
    x, cond = _input(9)
    schedule = SCHEDULES[0]
    change = (backbone(x, schedule, cond) - backbone(x, schedule, cond + _noise(cond))).abs().max().item()
    assert (change > 0) == backbone.uses_condition, "`uses_condition` does not say whether the condition matters"


def everything_learns(kind: type[Backbone]) -> None:
    """A training pass gives every parameter a finite gradient."""
    backbone = _backbone(kind).train()
    x, cond = _input(9)
    backbone(x, SCHEDULES[0], cond).square().sum().backward()
    _all_learn(backbone)


# -------------------------------------------------------------------------------------------------------- routers


def _router(kind: type[Router]) -> Any:
    return _seeded(lambda: kind(kind.max_experts or 4, WIDTH)).eval()


def weights_sum_to_one(kind: type[Router]) -> None:
    """Each sequence has different experts, all of which exist, and weights that sum to 1."""
    router = _router(kind)
    x, cond = _input(5, batch=32)
    routing = router(cond, x)
    n = kind.max_experts or 4
    assert routing.weights.shape == routing.experts.shape == (32, routing.experts.shape[1]), "one row a sequence"
    _same(routing.weights.sum(1), torch.ones(32), "weights do not sum to 1")
    assert routing.experts.min() >= 0 and routing.experts.max() < n, "an expert that does not exist"
    assert all(len(set(row)) == len(row) for row in routing.experts.tolist()), "the same expert twice"


def routing_is_repeatable(kind: type[Router]) -> None:
    """In eval mode a sequence goes to the same experts every time, alone or among others."""
    router = _router(kind)
    x, cond = _input(5, batch=8)
    a, b, alone = router(cond, x), router(cond, x), router(cond[:1], x[:1])
    assert torch.equal(a.experts, b.experts) and torch.equal(a.weights, b.weights), "routing changes from call to call"
    assert torch.equal(a.experts[:1], alone.experts), "a sequence alone is routed otherwise than among others"


def entity_is_needed_as_declared(kind: type[Router]) -> None:
    """It routes without an entity exactly where it does not declare `needs_entity`."""
    router = _router(kind)
    x, _ = _input(5)
    try:
        router(None, x)
    except (ValueError, TypeError, AttributeError):
        assert kind.needs_entity, "it fails without an entity, which it does not declare to need"
    else:
        assert not kind.needs_entity, "it declares to need an entity and does without"


def router_learns(kind: type[Router]) -> None:
    """The weights carry a gradient to every parameter of the router, but for one that declares not to learn."""
    if not kind.learns:
        return
    router = _router(kind).train()
    x, cond = _input(5, batch=8)
    routing = router(cond, x)
    if list(router.parameters()):
        (routing.weights * torch.arange(8.0)[:, None]).sum().backward()
        still = [n for n, p in router.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not still, f"no gradient reaches {', '.join(still)}"


def router_is_restored(kind: type[Router]) -> None:
    """Saved and loaded, it routes the same."""
    router = _router(kind)
    torch.manual_seed(7)
    fresh: Any = kind(kind.max_experts or 4, WIDTH).eval()
    fresh.load_state_dict(router.state_dict())
    x, cond = _input(5, batch=8)
    _same(fresh(cond, x).weights, router(cond, x).weights, "loaded into a fresh copy, it routes otherwise")


# ---------------------------------------------------------------------------------------- tokenizers of fields, mixers

NODES, CHANNELS, ENTITY = 5, 2, 4


def _field_tokenizer(kind: type[FieldTokenizer]) -> tuple[Any, Tensor]:
    history = torch.randn(3, STEPS, NODES, CHANNELS, generator=torch.Generator().manual_seed(1))
    return _seeded(lambda: kind(STEPS, CHANNELS, WIDTH)).eval(), history


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
    others[:, :, 1:] += _noise(others[:, :, 1:])
    _same(before[:, :, 0], tokenizer(others)[:, :, 0], "the tokens of a node change with other nodes")
    for step in range(STEPS):
        mine = history.clone()
        mine[:, step] += _noise(mine[:, step])
        assert not torch.equal(before, tokenizer(mine)), f"step {step} of the past changes no token"


def field_tokens_are_repeatable(kind: type[FieldTokenizer]) -> None:
    """In eval mode a history has the same tokens every time."""
    tokenizer, history = _field_tokenizer(kind)
    _same(tokenizer(history), tokenizer(history), "the tokens change from call to call")


def windows_are_apart(kind: type[FieldTokenizer]) -> None:
    """A window alone gets the tokens it gets among others."""
    tokenizer, history = _field_tokenizer(kind)
    _same(tokenizer(history)[:1], tokenizer(history[:1]), "windows of a batch mix")


def field_tokenizer_learns(kind: type[FieldTokenizer]) -> None:
    """Tokens carry a finite gradient to every parameter."""
    tokenizer, history = _field_tokenizer(kind)
    tokenizer.train()(history).square().sum().backward()
    _all_learn(tokenizer)


def field_tokenizer_is_restored(kind: type[FieldTokenizer]) -> None:
    """Saved and loaded, it answers the same."""
    tokenizer, history = _field_tokenizer(kind)
    torch.manual_seed(7)
    fresh: Any = kind(STEPS, CHANNELS, WIDTH).eval()
    fresh.load_state_dict(tokenizer.state_dict())
    _same(fresh(history), tokenizer(history), "loaded into a fresh copy, it makes other tokens")


def _mixer_parts(kind: type[Mixer]) -> tuple[Any, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    graph = torch.rand(NODES, NODES, generator=random).fill_diagonal_(0)
    x = torch.randn(2, 3, NODES, WIDTH // 2, 2, generator=random)
    entity = torch.randn(NODES, ENTITY, generator=random)
    return _seeded(lambda: kind(graph, WIDTH // 2, 2, ENTITY)).eval(), x, entity


def mixing_keeps_the_shape(kind: type[Mixer]) -> None:
    """What it adds has the shape of what it was given, for one scale and for several."""
    mixer, x, entity = _mixer_parts(kind)
    assert mixer(x, entity).shape == x.shape, f"what it adds has shape {tuple(mixer(x, entity).shape)}"
    single = _seeded(lambda: kind(torch.ones(NODES, NODES), WIDTH, 1, ENTITY))
    assert single(x.reshape(2, 3, NODES, WIDTH, 1), entity).shape == (2, 3, NODES, WIDTH, 1), "one scale changes the shape"


def mixing_is_repeatable(kind: type[Mixer]) -> None:
    """In eval mode it adds the same every time."""
    mixer, x, entity = _mixer_parts(kind)
    _same(mixer(x, entity), mixer(x, entity), "what it adds changes from call to call")


def tokens_are_mixed_apart(kind: type[Mixer]) -> None:
    """It mixes over nodes and scales, not over tokens or windows."""
    mixer, x, entity = _mixer_parts(kind)
    whole = mixer(x, entity)
    _same(whole[:1], mixer(x[:1], entity), "windows of a batch mix")
    _same(whole[:, :1], mixer(x[:, :1], entity), "tokens mix")


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
        (mixer.train()(x, entity) * _noise(x)).sum().backward()
        _all_learn(mixer)


def mixer_is_restored(kind: type[Mixer]) -> None:
    """Saved and loaded, it answers the same."""
    mixer, x, entity = _mixer_parts(kind)
    torch.manual_seed(7)
    graph = torch.rand(NODES, NODES, generator=torch.Generator().manual_seed(1)).fill_diagonal_(0)
    fresh: Any = kind(graph, WIDTH // 2, 2, ENTITY).eval()
    fresh.load_state_dict(mixer.state_dict())
    _same(fresh(x, entity), mixer(x, entity), "loaded into a fresh copy, it answers otherwise")


# ------------------------------------------------------------------------------------------- tokenizers of points


def _point_tokenizer(kind: type[PointTokenizer]) -> tuple[Any, Paths]:
    paths = walks()
    tokenizer = _seeded(lambda: kind(WIDTH)).eval()
    tokenizer.fit(paths)
    n = paths.time.shape[1] // tokenizer.patch * tokenizer.patch
    return tokenizer, _first(paths, n)


def _first(paths: Paths, n: int) -> Paths:
    """The first ``n`` points of each."""
    parts = (x[:, :n] for x in (paths.place, paths.time, paths.hidden_place, paths.hidden_time))
    place, time, hidden_place, hidden_time = parts
    return Paths(place, time, paths.start, hidden_place, hidden_time, paths.lengths.clamp(max=n))


def _onward(tokenizer: Any, paths: Paths) -> PointTokens:
    return tokenizer.onward(paths, 0, paths.time.shape[1] // tokenizer.patch, {})


def _same_tokens(a: PointTokens, b: PointTokens, message: str, tokens: int | None = None, patch: int = 1) -> None:
    """The first so many tokens are the same, what their numbers mean included."""
    points = None if tokens is None else tokens * patch
    _same(a.inputs[:, :tokens], b.inputs[:, :tokens], message)
    for name in ("place", "time", "metres", "seconds"):
        _same(getattr(a, name)[:, :points], getattr(b, name)[:, :points], f"{message}: {name}")


def point_tokens_fit(kind: type[PointTokenizer]) -> None:
    """There is a token a patch and an anchor and a unit a point, both ways, and units are above 0."""
    tokenizer, paths = _point_tokenizer(kind)
    b, n = paths.time.shape
    for tokens in (tokenizer.at_once(paths), _onward(tokenizer, paths)):
        assert tokens.inputs.shape == (b, n // tokenizer.patch, WIDTH), f"inputs have shape {tuple(tokens.inputs.shape)}"
        assert tokens.inputs.isfinite().all(), "some input is not finite"
        assert tokens.place.shape == (b, n, 2) and tokens.time.shape == (b, n), "there is not an anchor a point"
        assert (tokens.metres > 0).all() and (tokens.seconds > 0).all(), "some unit is not above 0"
        assert tokenizer.apart(tokens.inputs).shape == (b, n, WIDTH), "hidden states do not come apart into points"


def point_tokens_are_repeatable(kind: type[PointTokenizer]) -> None:
    """In eval mode trajectories have the same tokens every time, both ways."""
    tokenizer, paths = _point_tokenizer(kind)
    for way in (tokenizer.at_once, lambda x: _onward(tokenizer, x)):
        _same_tokens(way(paths), way(paths), "the tokens change from call to call")


def points_come_back(kind: type[PointTokenizer]) -> None:
    """Numbers made of a point by its anchor and unit, in float32, give it back to half a metre and a millisecond."""
    tokenizer, paths = _point_tokenizer(kind)
    there = torch.arange(paths.time.shape[1]) < paths.lengths[:, None]
    for tokens in (tokenizer.at_once(paths), _onward(tokenizer, paths)):
        place = ((paths.place - tokens.place) / tokens.metres[..., None]).float()
        time = ((paths.time - tokens.time) / tokens.seconds).asinh().float().double().sinh()
        off = (tokens.place + tokens.metres[..., None] * place - paths.place).norm(dim=-1)[there].max().item()
        late = (tokens.time + tokens.seconds * time - paths.time).abs()[there].max().item()
        assert off < 0.5, f"a place comes back {off:.2g} m away"
        assert late < 1e-3, f"a moment comes back {late:.2g} s away"


def hidden_points_change_nothing(kind: type[PointTokenizer]) -> None:
    """What is hidden is not looked at: other places, moments or NaN there make the same tokens."""
    tokenizer, paths = _point_tokenizer(kind)
    place = paths.place.masked_fill(paths.hidden_place[..., None], float("nan"))
    time = paths.time.masked_fill(paths.hidden_time, float("nan"))
    other = Paths(place, time, paths.start, paths.hidden_place, paths.hidden_time, paths.lengths)
    _same_tokens(tokenizer.at_once(paths), tokenizer.at_once(other), "tokens look at what is hidden")


def points_do_not_see_ahead(kind: type[PointTokenizer]) -> None:
    """Step by step a token looks at no point of its own patch or after it, but for shown moments of its own."""
    tokenizer, paths = _point_tokenizer(kind)
    before = _onward(tokenizer, paths)
    p, n = tokenizer.patch, paths.time.shape[1]
    for token in range(1, n // p):
        place, time = paths.place.clone(), paths.time.clone()
        place[:, token * p :] = float("nan")
        hidden = paths.hidden_time.clone()
        time[:, token * p :][hidden[:, token * p :]] = float("nan")
        time[:, (token + 1) * p :] = float("nan")
        other = Paths(place, time, paths.start, paths.hidden_place, hidden, paths.lengths)
        after = tokenizer.onward(other, 0, token + 1, {})
        _same_tokens(before, after, f"token {token} looks ahead", token + 1, p)


def onward_is_onward(kind: type[PointTokenizer]) -> None:
    """Some tokens first and then the others are all of them together."""
    tokenizer, paths = _point_tokenizer(kind)
    whole, tokens = _onward(tokenizer, paths), paths.time.shape[1] // tokenizer.patch
    state: State = {}
    cuts = [0, tokens // 2, tokens // 2 + 1, tokens]
    parts = [tokenizer.onward(paths, a, b, state) for a, b in pairwise(cuts) if a < b]
    together = PointTokens(
        torch.cat([t.inputs for t in parts], 1),
        whole.rows,
        *(torch.cat([getattr(t, name) for t in parts], 1) for name in ("place", "time", "metres", "seconds")),
    )
    _same_tokens(whole, together, "tokens that come later differ")


def paths_are_apart(kind: type[PointTokenizer]) -> None:
    """A trajectory alone gets the tokens it gets among others, whatever stands after its points."""
    tokenizer, paths = _point_tokenizer(kind)
    p = tokenizer.patch
    for i, length in enumerate(paths.lengths.tolist()):
        one = {f.name: getattr(paths, f.name)[i : i + 1].clone() for f in fields(Paths)}
        for name in ("place", "time"):
            one[name][:, length:] = 1e6
        for name in ("hidden_place", "hidden_time"):
            one[name][:, length:] ^= True
        alone = _first(Paths(**one), -(-length // p) * p)
        for way in (tokenizer.at_once, lambda x: _onward(tokenizer, x)):
            a, b = way(alone), way(paths)
            n = a.inputs.shape[1]
            _same(a.inputs, b.inputs[i : i + 1, :n], "trajectories or their padding mix")
            for name in ("place", "time", "metres", "seconds"):
                mine, among = getattr(a, name)[:, :length], getattr(b, name)[i : i + 1, :length]
                _same(mine, among, f"trajectories or their padding mix: {name}")


def steps_are_those_of_a_whole_pass(kind: type[PointTokenizer]) -> None:
    """Put together with a backbone, it tells the same with a cache as in whole passes over what it has told so far."""
    tokenizer, paths = _point_tokenizer(kind)
    model = Completer(tokenizer, _seeded(lambda: Transformer(WIDTH, depth=1))).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    p, n = tokenizer.patch, paths.time.shape[1]
    known = n // 2 // p * p
    shown = torch.zeros_like(paths.hidden_time)
    whole = replace(paths, place=paths.place.clone(), hidden_time=shown, lengths=torch.full_like(paths.lengths, n))
    place, _ = model.step_by_step(whole, known)
    for first in range(known, n, p):
        whole.place[:, first : first + p] = model.next_points(whole)[0][:, first : first + p]
    worst = (place - whole.place).abs().max().item()
    assert worst < 0.1, f"with a cache it tells a place {worst:.2g} m from the one it tells without"


def walks_are_the_same_elsewhere(kind: type[PointTokenizer]) -> None:
    """The same walk in another country, a quarter round the earth, makes the same tokens."""
    tokenizer, paths = _point_tokenizer(kind)
    metres = paths.place[0].numpy()
    when = (paths.time[0].numpy() * 1e6).astype(np.int64)
    made = []
    for origin in ((52.0, 13.0), (-10.5, 103.0)):
        lat, lon = from_local(metres, origin)
        walk = Trajectory("a", when, lat, lon)
        made.append(collate([walk], [nothing_hidden(len(walk))], "UTC", multiple=tokenizer.patch))
    for way in (tokenizer.at_once, lambda x: _onward(tokenizer, x)):
        _same_tokens(way(made[0]), way(made[1]), "tokens know where on the earth the walk is")


def point_heads_make_points(kind: type[PointTokenizer]) -> None:
    """The heads give two numbers a place and one a moment, with finite losses, and everything learns."""
    tokenizer, paths = _point_tokenizer(kind)
    tokens = tokenizer.train().at_once(paths)
    hidden = tokenizer.apart(tokens.inputs)
    total = torch.zeros(())
    known = tokenizer.knowing(hidden, torch.ones(*hidden.shape[:2], 2))
    for head, given, n in ((tokenizer.place_head, hidden, 2), (tokenizer.time_head, known, 1)):
        drawn = head.sample(given, given, generator=torch.Generator().manual_seed(0))
        assert drawn.shape == (*given.shape[:2], n), f"a head draws {tuple(drawn.shape)}"
        total = total + head.loss(given, given, torch.ones_like(drawn)).sum()
    assert total.isfinite(), "the loss is not finite"
    total.backward()
    _all_learn(tokenizer)


def point_tokenizer_is_restored(kind: type[PointTokenizer]) -> None:
    """Saved and loaded, it answers the same: units are kept with the weights."""
    tokenizer, paths = _point_tokenizer(kind)
    torch.manual_seed(7)
    fresh: Any = kind(WIDTH).eval()
    fresh.load_state_dict(tokenizer.state_dict())
    _same_tokens(fresh.at_once(paths), tokenizer.at_once(paths), "loaded into a fresh copy, it makes other tokens")


# ----------------------------------------------------------------------------------------------------------- masks


def _hides(kind: type[Mask]) -> Iterator[tuple[int, Hidden, Hidden]]:
    """What a mask chooses of short and long paths, twice with one seed."""
    for n in sorted({kind.least, 7, 60}):
        rng = np.random.default_rng(n)
        time, place = np.cumsum(rng.uniform(1, 30, n)), np.cumsum(rng.normal(0, 40, (n, 2)), axis=0)
        a, b = (kind()(time, place, np.random.default_rng(5)) for _ in range(2))
        yield n, a, b


def masks_ask_something(kind: type[Mask]) -> None:
    """Of every trajectory that is long enough some place or moment is hidden; its first point is shown."""
    for n, hidden, _ in _hides(kind):
        assert (hidden.place | hidden.time).any(), f"of {n} points nothing is hidden"
        assert not (hidden.place | hidden.time | hidden.absent)[0], f"of {n} points the first is not shown"


def masks_are_flags(kind: type[Mask]) -> None:
    """There is a flag for each point, and what is absent is not asked for."""
    for n, hidden, _ in _hides(kind):
        for name in ("place", "time", "absent"):
            flags = getattr(hidden, name)
            assert flags.shape == (n,) and flags.dtype == bool, f"{name} is {flags.dtype} {flags.shape} of {n} points"
        assert not (hidden.absent & (hidden.place | hidden.time)).any(), "some point is absent and asked for"


def masks_are_repeatable(kind: type[Mask]) -> None:
    """The same random numbers hide the same."""
    for _, a, b in _hides(kind):
        assert all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("place", "time", "absent")), (
            "the same random numbers hide other points"
        )


def _all_learn(part: Any) -> None:
    bad = [n for n, p in part.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not bad, f"no finite gradient for {', '.join(bad)}"


# ------------------------------------------------------------------------------------------------- all with weights


def options_have_defaults(kind: type) -> None:
    """What the experimenter chooses is keyword-only with a default, so that the signature is the configuration."""
    parameters = list(inspect.signature(kind).parameters.values())
    loose = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    assert not loose, f"options without a default: {', '.join(loose)}"
    assert not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters), "*args or **kwargs hide options"


def tokenizer_is_restored(kind: type[Tokenizer]) -> None:
    """Saved and loaded, it answers the same."""
    tokenizer, x = _tokenizer(kind)
    torch.manual_seed(7)
    fresh: Any = kind(small_mapper(), STEPS, WIDTH).eval()
    fresh.load_state_dict(tokenizer.state_dict())
    assert torch.equal(fresh.encode(x), tokenizer.encode(x)), "loaded into a fresh copy, it makes other tokens"


def backbone_is_restored(kind: type[Backbone]) -> None:
    """Saved and loaded, it answers the same."""
    backbone = _backbone(kind)
    torch.manual_seed(7)
    fresh: Any = kind(WIDTH).eval()
    fresh.load_state_dict(backbone.state_dict())
    x, cond = _input(9)
    _same(fresh(x, SCHEDULES[0], cond), backbone(x, SCHEDULES[0], cond), "loaded into a fresh copy, it answers otherwise")


def recipe_fits(recipe: Recipe) -> None:
    """Its parts are installed and fit each other."""
    check(recipe)


def recipe_is_read_again(recipe: Recipe) -> None:
    """Written as TOML and read again, it is the same."""
    assert Recipe.loads(recipe.dumps()) == recipe, "read again, it is another recipe"


LAWS: dict[str, tuple[Law, ...]] = {
    "mapper": (
        centres_lie_in_their_cells,
        fitted_points_are_on_the_map,
        outside_is_minus_one,
        levels_are_nested,
        geometry_holds_the_centres,
        rebuilt_from_its_config,
        cells_are_repeatable,
        options_have_defaults,
    ),
    "tokenizer": (
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
    ),
    "backbone": (
        shape_is_kept,
        outputs_are_repeatable,
        later_groups_change_nothing,
        earlier_tokens_matter,
        group_by_group_is_all_at_once,
        groups_may_come_together,
        padding_changes_nothing,
        sequences_are_apart,
        condition_steers_where_declared,
        everything_learns,
        backbone_is_restored,
        options_have_defaults,
    ),
    "router": (
        weights_sum_to_one,
        routing_is_repeatable,
        entity_is_needed_as_declared,
        router_learns,
        router_is_restored,
        options_have_defaults,
    ),
    "field tokenizer": (
        tokens_of_every_node,
        field_tokens_are_repeatable,
        nodes_are_apart,
        windows_are_apart,
        field_tokenizer_learns,
        field_tokenizer_is_restored,
        options_have_defaults,
    ),
    "point tokenizer": (
        point_tokens_fit,
        point_tokens_are_repeatable,
        points_come_back,
        hidden_points_change_nothing,
        points_do_not_see_ahead,
        onward_is_onward,
        steps_are_those_of_a_whole_pass,
        paths_are_apart,
        walks_are_the_same_elsewhere,
        point_heads_make_points,
        point_tokenizer_is_restored,
        options_have_defaults,
    ),
    "recipe": (recipe_fits, recipe_is_read_again),
    "mask": (masks_ask_something, masks_are_flags, masks_are_repeatable, options_have_defaults),
    "mixer": (
        mixing_keeps_the_shape,
        mixing_is_repeatable,
        tokens_are_mixed_apart,
        graph_is_needed_as_declared,
        mixer_learns,
        mixer_is_restored,
        options_have_defaults,
    ),
}
"""The laws of each kind of part; tokenizers of fields and of points have their own."""


def laws_of(entry: Entry) -> tuple[Law, ...]:
    """The laws that a registered part is held to.

    Raises:
        MobtkError: the part does not load.
    """
    if entry.kind == "tokenizer":
        for contract, name in ((FieldTokenizer, "field tokenizer"), (PointTokenizer, "point tokenizer")):
            if issubclass(load_part("tokenizer", entry.full_name), contract):
                return LAWS[name]
    return LAWS.get(entry.kind, ())


class Verdict(Struct):
    """What one law says of one part.

    Args:
        part: its kind and full name.
        law: the sentence.
        problem: how it is broken; ``None`` where it holds.
        where: file and line of the part at which an error was raised.
        trace: and the stack there.
    """

    part: str
    law: str
    problem: str | None = None
    where: str = ""
    trace: str = ""


def cases(plugin: str | None = None) -> list[Any]:
    """``(part, law)`` for every part of a plugin (of all plugins by default), as pytest parameters with readable ids.

    Raises:
        BadInput: the plugin is not loaded: not installed, or a single file (hold that to its laws by
            ``mobtk --plugin FILE plugins check``).
    """
    import pytest

    if plugin is not None and plugin not in {e.package for e in registry()}:
        raise BadInput(f"no plugin {plugin!r} is loaded, so there is nothing to hold to its laws; install it first")
    return [
        pytest.param(load(e), law, id=f"{e.full_name}-{law.__name__}")
        for e in registry()
        if plugin in (None, e.package)
        for law in laws_of(e)
    ]


def with_options(kind: Any, **options: Any) -> Any:
    """A part whose constructor (of a mapper, ``fit``) has these options by default, to hold it to its laws with them."""
    if issubclass(kind, SpatialMapper):
        return type(kind.__name__, (kind,), {"example_options": {**kind.example_options, **options}})
    signature = inspect.signature(kind)
    if unknown := set(options) - {p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}:
        raise BadInput(f"{kind.__name__} has no option {min(unknown)!r}")

    def init(self: Any, *imposed: Any, **chosen: Any) -> None:
        kind.__init__(self, *imposed, **(options | chosen))

    return type(kind.__name__, (kind,), {"__init__": init, "__signature__": signature})


def check_parts(name: str | None = None, options: Mapping[str, Any] | None = None) -> list[Verdict]:
    """Run every law over every part of a plugin, over one part by its full name, or over all parts.

    Args:
        name: of a plugin or a part.
        options: of the part, instead of its defaults.
    """
    verdicts = []
    for entry in registry():
        if name not in (None, entry.package, entry.full_name):
            continue
        part = f"{entry.kind} {entry.full_name}"
        try:
            laws = laws_of(entry)
            kind = load(entry)
            if options:
                kind = with_options(kind, **options)
        except MobtkError as error:
            verdicts.append(Verdict(part, "It loads", str(error), *_origin(error.__cause__ or error)))
            continue
        for law in laws:
            verdict = Verdict(part, (law.__doc__ or law.__name__).strip().rstrip("."))
            try:
                law(kind)
            except AssertionError as error:
                verdict.problem = first_line(error)
            except Exception as error:  # a foreign part may raise anything
                verdict.problem = f"{type(error).__name__}: {first_line(error)}"
                verdict.where, verdict.trace = _origin(error)
            verdicts.append(verdict)
    return verdicts


def _origin(error: BaseException) -> tuple[str, str]:
    """File and line in foreign code at which an error was raised, and the stack from there."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((OURS, *LIBRARIES))]
    return (f"{own[-1].filename}:{own[-1].lineno}", own_trace(error)) if own else ("", "")
