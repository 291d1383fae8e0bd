"""Laws of routers."""

from typing import Any

import torch

from mobtk.contracts import (
    Router,
)
from mobtk.testing.fixtures import WIDTH
from mobtk.testing.laws.common import Law, options_have_defaults, same, seeded, vectors


def _router(kind: type[Router]) -> Any:
    return seeded(lambda: kind(kind.max_experts or 4, WIDTH)).eval()


def weights_sum_to_one(kind: type[Router]) -> None:
    """Each sequence has different experts, all of which exist, and weights that sum to 1."""
    router = _router(kind)
    x, cond = vectors(5, batch=32)
    routing = router(cond, x)
    n = kind.max_experts or 4
    assert routing.weights.shape == routing.experts.shape == (32, routing.experts.shape[1]), "one row a sequence"
    same(routing.weights.sum(1), torch.ones(32), "weights do not sum to 1")
    assert routing.experts.min() >= 0 and routing.experts.max() < n, "an expert that does not exist"
    assert all(len(set(row)) == len(row) for row in routing.experts.tolist()), "the same expert twice"


def routing_is_repeatable(kind: type[Router]) -> None:
    """In eval mode a sequence goes to the same experts every time, alone or among others."""
    router = _router(kind)
    x, cond = vectors(5, batch=8)
    a, b, alone = router(cond, x), router(cond, x), router(cond[:1], x[:1])
    assert torch.equal(a.experts, b.experts) and torch.equal(a.weights, b.weights), "routing changes from call to call"
    assert torch.equal(a.experts[:1], alone.experts), "a sequence alone is routed otherwise than among others"


def entity_is_needed_as_declared(kind: type[Router]) -> None:
    """It routes without an entity exactly where it does not declare `needs_entity`."""
    router = _router(kind)
    x, _ = vectors(5)
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
    x, cond = vectors(5, batch=8)
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
    x, cond = vectors(5, batch=8)
    same(fresh(cond, x).weights, router(cond, x).weights, "loaded into a fresh copy, it routes otherwise")


LAWS: tuple[Law, ...] = (
    weights_sum_to_one,
    routing_is_repeatable,
    entity_is_needed_as_declared,
    router_learns,
    router_is_restored,
    options_have_defaults,
)
