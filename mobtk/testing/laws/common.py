"""What laws of several kinds share."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mobtk.testing.fixtures import WIDTH

Law = Callable[[Any], None]
TOLERANCE = 1e-4


def same(a: Tensor, b: Tensor, message: str) -> None:
    """Equal but for rounding."""
    worst = (a - b).abs().max().item() if a.numel() else 0.0
    assert a.shape == b.shape and worst <= TOLERANCE, f"{message} (largest difference {worst:.2g})"


def seeded(maker: Callable[[], Any]) -> Any:
    """What a maker makes, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker()


def vectors(length: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Some vectors of tokens and conditions."""
    random = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, WIDTH, generator=random), torch.randn(batch, WIDTH, generator=random)


def noise(x: Tensor) -> Tensor:
    """A change that no normalisation takes out again."""
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(2))


def all_learn(part: Any) -> None:
    """Every parameter has a finite gradient."""
    bad = [n for n, p in part.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not bad, f"no finite gradient for {', '.join(bad)}"


def options_have_defaults(kind: type) -> None:
    """What the experimenter chooses is keyword-only with a default, so that the signature is the configuration."""
    parameters = list(inspect.signature(kind).parameters.values())
    loose = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    assert not loose, f"options without a default: {', '.join(loose)}"
    assert not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters), "*args or **kwargs hide options"
