"""The forecaster: tokenizer, mixers and backbones put together, from the past of all nodes to their future at once."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import Backbone, FieldTokenizer, Mixer
from mobtk.models.moe import MixtureOfExperts
from mobtk.models.scaling import Scaler

ERRORS = {"absolute": F.l1_loss, "squared": F.mse_loss, "huber": F.huber_loss}


@final
class Forecaster(nn.Module):
    """Foretells the next ``H`` steps of a field, all at once, from the last ``T``.

    Each layer mixes over the nodes, then over the tokens of each node; both are added to what they were given. A linear
    head, the same for all nodes, reads all tokens of a node.

    Args:
        tokenizer: history -> tokens of each node.
        layers: a mixer and a backbone each.
        scaler: scales values, and forecasts back.
        horizon: ``H``.
        nodes: ``N``.
        channels: ``C``.
        entity: ``S``, width of the learned embedding of a node.
        real_loss: the loss is of real values, not of scaled ones.
        error: of which the loss is the mean; see :class:`mobtk.recipe.Forecast`.
    """

    def __init__(
        self,
        tokenizer: FieldTokenizer,
        layers: Sequence[tuple[Mixer, Backbone]],
        scaler: Scaler,
        horizon: int,
        nodes: int,
        channels: int,
        width: int,
        entity: int,
        *,
        real_loss: bool = False,
        error: str = "absolute",
    ) -> None:
        super().__init__()
        self.tokenizer, self.scaler = tokenizer, scaler
        self.mixers = nn.ModuleList(mixer for mixer, _ in layers)
        self.backbones = nn.ModuleList(backbone for _, backbone in layers)
        self.entity = nn.Parameter(nn.init.xavier_uniform_(torch.empty(nodes, entity)))
        self.head = nn.Linear(tokenizer.schedule.n_tokens * width, horizon * channels)
        self.horizon, self.real_loss, self.error = horizon, real_loss, error

    def forward(self, history: Float[Tensor, "B T N C"], slots: Int[Tensor, "B both"]) -> Float[Tensor, "B H N C"]:
        """Forecasts in real units. NaN in the history was not measured; slots are of its steps and the next ``H``."""
        steps = history.shape[1]
        return self.scaler.unscale(self.scaled(self.scaler.scale(history, slots[:, :steps])), slots[:, steps:])

    def scaled(self, history: Float[Tensor, "B T N C"]) -> Float[Tensor, "B H N C"]:
        """The same in scaled units, both ways."""
        x, width, shift = self.scaler.window(history)
        x = self.tokenizer(x)
        b, tokens, n, d, q = x.shape
        for mixer, backbone in zip(self.mixers, self.backbones, strict=True):
            x = x + mixer(x, self.entity)
            of_nodes = x.permute(0, 2, 1, 4, 3).reshape(b * n, tokens, q * d)  # scale after scale
            known = {"entity": self.entity.repeat(b, 1)} if isinstance(backbone, MixtureOfExperts) else {}
            mixed = backbone(of_nodes, self.tokenizer.schedule, **known)
            x = x + mixed.view(b, n, tokens, q, d).permute(0, 2, 1, 4, 3)
        out = self.head(x.permute(0, 2, 1, 3, 4).reshape(b, n, tokens * d * q))
        return out.view(b, n, self.horizon, -1).transpose(1, 2) * width + shift

    def loss(self, values: Float[Tensor, "B both N C"], slots: Int[Tensor, "B both"]) -> dict[str, Float[Tensor, ""]]:
        """Mean error over what was measured, and what the backbones add to it."""
        scaled = self.scaler.scale(values, slots)
        steps = values.shape[1] - self.horizon
        truth = scaled[:, steps:]
        known = ~truth.isnan()
        off = torch.where(known, self.scaled(scaled[:, :steps]) - truth, 0.0)
        if self.real_loss:
            off = off * self.scaler.std
        error = ERRORS[self.error](off, torch.zeros_like(off), reduction="sum")
        terms = {"error": error / known.sum().clamp(min=1)}
        extra = [b.auxiliary_loss for b in self.backbones if b.auxiliary_loss is not None]
        if extra:
            terms["experts"] = torch.stack(extra).sum()
        return terms

    def served(self) -> list[Int[Tensor, "BN"]]:
        """By which expert each node of each window of the last pass was served, in each layer that has experts."""
        return [b.served for b in self.backbones if isinstance(b, MixtureOfExperts) and b.served is not None]
