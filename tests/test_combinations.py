"""Every combination of installed parts: the valid ones build, learn and generate; the others are refused."""

import dataclasses
import itertools

import pytest
import torch

from mobtk.contracts import FieldTokenizer, PointTokenizer, Tokenizer
from mobtk.errors import PartMismatch
from mobtk.models.assemble import assemble, assemble_completer, assemble_forecaster, load_part
from mobtk.plugins import registry
from mobtk.recipe import Complete, Forecast, Part, Recipe
from mobtk.testing.fixtures import STEPS, points, stays, walks

KINDS = ("mapper", "tokenizer", "backbone", "router")


def _names(kind, task="generate"):
    wanted = {"generate": Tokenizer, "forecast": FieldTokenizer, "complete": PointTokenizer}[task]
    names = [e.full_name for e in registry().entries(kind)]
    return names if kind != "tokenizer" else [n for n in names if issubclass(load_part(kind, n), wanted)]


ALL = list(itertools.product(*(_names(kind) for kind in KINDS)))
FIELD_KINDS = ("tokenizer", "mixer", "backbone", "router")
ALL_OF_FIELDS = list(itertools.product(*(_names(kind, "forecast") for kind in FIELD_KINDS)))


def _recipe(mapper, tokenizer, backbone, router, traits=("home", "work", "cluster")):
    experts = min(2, load_part("router", router).max_experts or 2)
    names = {kind: Part(name) for kind, name in zip(KINDS, (mapper, tokenizer, backbone, router), strict=True)}
    return Recipe(width=16, experts=experts, traits=traits, **names)


def _mapper(name, _made={}):  # noqa: B006
    if name not in _made:
        kind = load_part("mapper", name)
        _made[name] = kind.fit(*points(), **kind.example_options)
    return _made[name]


def _valid(mapper, tokenizer):
    return load_part("mapper", mapper).nested or not load_part("tokenizer", tokenizer).needs_levels


@pytest.mark.parametrize(("mapper", "tokenizer", "backbone", "router"), [c for c in ALL if _valid(*c[:2])])
def test_valid_combination_learns_and_generates(mapper, tokenizer, backbone, router):
    places = _mapper(mapper)
    n = places.n_cells[0]
    model = assemble(_recipe(mapper, tokenizer, backbone, router), places, STEPS, {"home": n, "work": n, "cluster": 8})
    x = stays(places)
    traits = torch.stack([x[:, 0], x[:, -1], torch.arange(len(x)) % 8], dim=1)
    if model.tokenizer.codec is not None:
        learned = sum(model.tokenizer.loss(x).values())
        if list(model.tokenizer.codec.parameters()):  # else it learns by averages alone
            learned.backward()
    model.train()
    tokens = model.tokenizer.encode(x)
    weights = [p for name, p in model.named_parameters() if not name.startswith("tokenizer.codec.")]
    optimizer = torch.optim.SGD(weights, lr=0.05)

    def loss():
        torch.manual_seed(2)  # noise draws the same both times, so that only the step differs
        return model.loss(tokens, traits)["tokens"]

    before = loss()
    before.backward()
    optimizer.step()
    assert loss().item() < before.item(), "one small step downhill does not lower the loss"
    drawn = model.eval().generate(traits, len(x), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == x.shape
    assert drawn.min() >= 0 and drawn.max() < n


@pytest.mark.parametrize(("mapper", "tokenizer", "backbone", "router"), [c for c in ALL if not _valid(*c[:2])])
def test_invalid_combination_is_refused_with_what_would_fit(mapper, tokenizer, backbone, router):
    with pytest.raises(PartMismatch, match=r"wants a mapper with levels; .* has one only\. Try: grid, h3, polygons"):
        assemble(_recipe(mapper, tokenizer, backbone, router), _mapper(mapper), STEPS, {})


def test_there_are_combinations_of_both_kinds():
    valid = [c for c in ALL if _valid(*c[:2])]
    assert len(valid) >= 45
    assert len(ALL) - len(valid) >= 9


@pytest.mark.parametrize("router", ["input", "entity"])
def test_routing_without_traits_is_refused(router):
    with pytest.raises(PartMismatch, match=f"router '[a-z.]*{router}' chooses among 2 experts.*Name some with --traits"):
        assemble(_recipe("grid", "cells", "transformer", router, traits=()), _mapper("grid"), STEPS, {})


def test_more_experts_than_the_router_serves_is_refused():
    recipe = Recipe(experts=4, router=Part("none"))
    with pytest.raises(PartMismatch, match="serves at most 1 expert, the recipe has 4. Try: input, entity"):
        assemble(recipe, _mapper("grid"), STEPS, {})


def test_sequence_longer_than_the_backbone_reads_is_refused():
    recipe = Recipe(tokenizer=Part("cells"), backbone=Part("gpt2", {"longest": 10}), traits=())
    with pytest.raises(PartMismatch, match="reads at most 10 tokens.*--set backbone.longest=24"):
        assemble(recipe, _mapper("grid"), STEPS, {})


def _forecast_recipe(tokenizer, mixer, backbone, router, **settings):
    experts = min(2, load_part("router", router).max_experts or 2)
    names = {k: Part(name) for k, name in zip(FIELD_KINDS, (tokenizer, mixer, backbone, router), strict=True)}
    forecast = Forecast(history=24, horizon=6, layers=2, entity=4, **settings)
    return Recipe(task="forecast", width=16, experts=experts, shared=experts > 1, forecast=forecast, **names)


@pytest.mark.parametrize(("tokenizer", "mixer", "backbone", "router"), ALL_OF_FIELDS)
def test_every_combination_forecasts_a_field_and_learns(tokenizer, mixer, backbone, router):
    graph = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    model = assemble_forecaster(_forecast_recipe(tokenizer, mixer, backbone, router), 1, 5, 2, graph)
    values = torch.randn(4, 30, 5, 2, generator=torch.Generator().manual_seed(1)).cumsum(1)
    values[0, :, 0] = float("nan")
    slots = torch.zeros(4, 30, dtype=torch.long)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def losses():
        torch.manual_seed(2)  # dropout and noisy gates draw the same both times, so that only the step differs
        return model.train().loss(values, slots)

    before = losses()
    sum(before.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    assert losses()["error"].item() < before["error"].item(), "a small step downhill does not lower the loss"
    forecast = model.eval()(values[:, :24], slots)
    assert forecast.shape == (4, 6, 5, 2)
    assert forecast.isfinite().all()


@pytest.mark.parametrize("tokenizer", _names("tokenizer", "complete"))
@pytest.mark.parametrize("backbone", _names("backbone"))
def test_every_combination_completes_points_and_learns(tokenizer, backbone):
    settings = Complete(window=24, onward=1.0)
    model = assemble_completer(
        Recipe(task="complete", width=16, tokenizer=Part(tokenizer), backbone=Part(backbone), complete=settings)
    )
    paths = walks()
    model.tokenizer.fit(paths)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def loss():
        torch.manual_seed(2)
        return sum(model.train().loss(paths, onward=True).values())

    before = loss()
    before.backward()
    optimizer.step()
    assert loss().item() < before.item(), "a small step downhill does not lower the loss"
    whole = dataclasses.replace(paths, lengths=torch.full_like(paths.lengths, 24))
    place, time = model.eval().step_by_step(whole, 12)
    assert place.isfinite().all() and time.isfinite().all()


def test_a_mixer_without_its_graph_is_refused():
    recipe = _forecast_recipe("patches", "graph", "gpt2", "none")
    with pytest.raises(
        PartMismatch, match="wants a graph of the nodes, and the field has none; make it with --graph, or try"
    ):
        assemble_forecaster(recipe, 1, 5, 1, None)


@pytest.mark.parametrize(("task", "tokenizer"), [("generate", "patches"), ("forecast", "cells")])
def test_a_tokenizer_of_the_other_task_is_refused(task, tokenizer):
    recipe = Recipe(task=task, tokenizer=Part(tokenizer))
    with pytest.raises(PartMismatch, match=f"tokenizer '{tokenizer}' does not read .* Try: "):
        assemble_forecaster(recipe, 1, 5, 1, None) if task == "forecast" else assemble(recipe, _mapper("grid"), STEPS, {})
