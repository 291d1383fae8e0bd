"""The part of chapter 12: a backbone in one file, which is a plugin by itself."""

import torch
from torch import nn

import mobtk
from mobtk.contracts import Backbone


class Fading(Backbone):
    """Mixes each token with averages of those so far, in which the past fades at speeds that are learned."""

    uses_condition = False

    def __init__(self, width, *, depth: int = 2):
        super().__init__()
        self.speeds = nn.ParameterList(torch.linspace(-3.0, 3.0, width) for _ in range(depth))
        self.mix = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(depth)
        )
        self.end = nn.LayerNorm(width)

    def forward(self, x, schedule, cond=None, state=None):
        """A loop over tokens: what was seen fades by a factor, what is seen fills the rest."""
        for i, (speed, mix) in enumerate(zip(self.speeds, self.mix, strict=True)):
            keep, past = torch.sigmoid(speed), state[i] if state else torch.zeros_like(x[:, 0])
            averages = []
            for token in x.unbind(1):
                past = keep * past + (1 - keep) * token
                averages.append(past)
            if state is not None:
                state[i] = past
            x = x + mix(torch.cat([x, torch.stack(averages, 1)], -1))
        return self.end(x)

    def new_state(self, batch, schedule):
        """What is left of the past in each layer."""
        return {i: torch.zeros(batch, len(speed), device=speed.device) for i, speed in enumerate(self.speeds)}


@mobtk.hookimpl
def mobtk_register(registry):
    """Give it a name."""
    registry.backbone("fading", "fading:Fading", "Averages of the past that fade")
