"""Denoising diffusion of whole trajectories in continuous coordinates."""

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.neighbors import KDTree
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mobtk.contracts import SpatialMapper
from mobtk.data.dataset import Dataset
from mobtk.errors import BadInput
from mobtk.mappers.embedding import coordinates
from mobtk.models.traits import TraitEmbedding


@final
class TrajectoryDiffusion(nn.Module):
    """A diffusion model in the manner of DiffTraj (Zhu et al. 2023, https://arxiv.org/abs/2304.11582).

    Noise is taken from a sequence of coordinates step by step by a one-dimensional UNet that knows the step and what
    is known of the person (classifier-free guidance, Ho & Salimans 2022, https://arxiv.org/abs/2207.12598). Fewer
    steps than it was trained with are those of DDIM (Song et al. 2021, https://arxiv.org/abs/2010.02502). A
    finished sequence is where its coordinates are nearest to the centre of a cell.

    Different from DiffTraj: the traits are those of mobtk's models, embedded as there, and not a trip's start, end,
    length and hour.

    Args:
        mapper: of the cells.
        trait_sizes: see :class:`~mobtk.models.traits.TraitEmbedding`.
        channels: of the first level; the next three have twice as many.
        noise_steps: of the training, at least 50; with 500 their variances go from 1e-4 to 0.05 as in DiffTraj.
        drop: share of training sequences whose traits are withheld, so that there can be guidance.
    """

    def __init__(
        self,
        mapper: SpatialMapper,
        trait_sizes: dict[str, int],
        *,
        channels: int = 128,
        noise_steps: int = 500,
        drop: float = 0.1,
    ) -> None:
        super().__init__()
        if noise_steps < 50 or channels < 2 or channels % 2:
            raise BadInput(
                f"a diffusion has at least 50 noise steps and an even number of channels, not {noise_steps}, {channels}"
            )
        self.noise_steps, self.drop = noise_steps, drop
        self.net = UNet(channels)
        self.traits = TraitEmbedding(mapper, trait_sizes, self.net.width)
        self.unknown = nn.Parameter(torch.zeros(self.net.width))
        self.register_buffer("xy", coordinates(mapper, 0), persistent=False)
        kept = torch.cumprod(1 - 500 / noise_steps * torch.linspace(1e-4, 0.05, noise_steps), 0)
        self.register_buffer("kept", kept, persistent=False)
        self.tree = KDTree(self.xy.numpy())

    def loss(self, cells: Int[Tensor, "B T"], traits: Int[Tensor, "B n"]) -> Float[Tensor, ""]:
        """Mean squared error of the noise that is foretold (DDPM, Ho et al. 2020, equation 14)."""
        x = self.xy[cells.long()].transpose(1, 2)
        step = torch.randint(self.noise_steps, (len(x),), device=x.device)
        noise, kept = torch.randn_like(x), self.kept[step][:, None, None]
        told = self.traits(traits)
        told = torch.where(torch.rand(len(x), 1, device=x.device) < self.drop, self.unknown, told)
        return F.mse_loss(self.net(kept.sqrt() * x + (1 - kept).sqrt() * noise, step, told).float(), noise)

    @torch.inference_mode()
    def generate(
        self,
        traits: Int[Tensor, "B n"],
        steps: int,
        *,
        denoising_steps: int = 100,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "B T"]:
        """Draw a sequence of ``steps`` cells for each row of traits.

        Args:
            traits: what is known of each person.
            steps: ``T``.
            denoising_steps: passes through the UNet: as many as in training are DDPM's, fewer are DDIM's.
            guidance: 1 asks for the traits as they are, more exaggerates them and needs a second pass a step.
        """
        if not 1 <= denoising_steps <= self.noise_steps:
            raise BadInput(f"denoising takes 1 to {self.noise_steps} steps, not {denoising_steps}")
        check_steps(steps)
        told, untold = self.traits(traits), self.unknown.expand(len(traits), -1)
        x = torch.randn(len(traits), 2, steps, generator=generator, device=told.device)
        at = torch.linspace(self.noise_steps - 1, 0, denoising_steps).round().long().tolist()
        for now, after in zip(at, [*at[1:], -1], strict=True):
            step = torch.full((len(x),), now, device=x.device)
            noise = self.net(x, step, told).float()
            if guidance != 1:
                plain = self.net(x, step, untold).float()
                noise = plain + guidance * (noise - plain)
            kept, kept_after = self.kept[now], self.kept[after] if after >= 0 else torch.ones_like(self.kept[0])
            clean = ((x - (1 - kept).sqrt() * noise) / kept.sqrt()).clamp(-5, 5)
            noise = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
            spread = x.new_zeros(())
            if denoising_steps == self.noise_steps and after >= 0:
                spread = ((1 - kept_after) / (1 - kept) * (1 - kept / kept_after)).sqrt()
            x = kept_after.sqrt() * clean + (1 - kept_after - spread**2).clamp(min=0).sqrt() * noise
            x = x + spread * torch.randn(x.shape, generator=generator, device=x.device)
        nearest = self.tree.query(x.transpose(1, 2).flatten(0, 1).cpu().numpy(), return_distance=False)
        return torch.from_numpy(nearest).view(len(x), steps).to(x.device)


def check_steps(steps: int) -> None:
    """The network halves a sequence three times."""
    if steps % 8:
        raise BadInput(f"a diffusion of {steps} steps cannot be halved three times; take a multiple of 8")


def fit_diffusion(
    dataset: Dataset,
    *,
    traits: Sequence[str] = ("home", "work", "cluster"),
    channels: int = 64,
    epochs: float = 30,
    batch: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    bfloat16: bool = False,
    device: torch.device | str = "cpu",
) -> TrajectoryDiffusion:
    """A diffusion model trained on the training split of a dataset; its weights are averaged over the last steps.

    Args:
        dataset: of a number of steps that 8 divides.
        traits: columns of the dataset.
        channels: see :class:`TrajectoryDiffusion`.
        epochs, batch, lr: of AdamW, whose rate rises for a twentieth of the steps and falls by half a cosine.
        seed: of everything random.
        bfloat16: whether the convolutions are computed in it.
        device: where.

    Raises:
        BadInput: 8 does not divide the steps of a sequence.
    """
    check_steps(dataset.info.steps)
    rows, device = dataset.rows("train"), torch.device(device)
    if not len(rows):
        raise BadInput(f"dataset {dataset.path} has no training sequences")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    sizes = {name: dataset.info.trait_sizes[name] for name in traits}
    model = TrajectoryDiffusion(dataset.mapper(), sizes, channels=channels).to(device)
    cells, known = torch.from_numpy(dataset.cells.copy()), torch.from_numpy(dataset.traits(traits))
    batch = min(batch, len(rows))
    total = max(1, round(epochs * (len(rows) // batch)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)

    def rate(i: int) -> float:
        return min(20 * (i + 1) / total, 0.5 * (1 + math.cos(math.pi * i / total)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    for _ in tqdm(range(total), desc="diffusion", unit="batch", disable=None):
        chosen = rng.choice(rows, batch, replace=False)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = model.loss(cells[chosen].to(device), known[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
    found: TrajectoryDiffusion = average.module  # type: ignore[assignment]
    return found.eval()


@final
class UNet(nn.Module):
    """DiffTraj's network: four levels of residual convolutions, attention between the ways down and up.

    Args:
        channels: of the first level; the next three have twice as many.
        blocks: residual blocks a level on the way down; one more on the way up.
    """

    def __init__(self, channels: int = 128, *, blocks: int = 2) -> None:
        super().__init__()
        self.channels, self.width = channels, 4 * channels
        self.time = nn.Sequential(nn.Linear(channels, self.width), nn.SiLU(), nn.Linear(self.width, self.width))
        self.begin = nn.Conv1d(2, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        sizes, now = [channels], channels
        for level, wide in enumerate((1, 2, 2, 2)):
            for _ in range(blocks):
                self.down.append(_Residual(now, wide * channels, self.width))
                now = wide * channels
                sizes.append(now)
            if level < 3:
                self.down.append(nn.Conv1d(now, now, 3, stride=2, padding=1))
                sizes.append(now)
        self.middle = nn.ModuleList([_Residual(now, now, self.width), _Attention(now), _Residual(now, now, self.width)])
        for level, wide in enumerate((2, 2, 2, 1)):
            for _ in range(blocks + 1):
                self.up.append(_Residual(now + sizes.pop(), wide * channels, self.width))
                now = wide * channels
            if level < 3:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(now, now, 3, padding=1)))
        self.end = nn.Sequential(nn.GroupNorm(_groups(now), now), nn.SiLU(), nn.Conv1d(now, 2, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "B 2 T"], step: Int[Tensor, "B"], told: Float[Tensor, "B c"]
    ) -> Float[Tensor, "B 2 T"]:
        """The noise in ``x`` after so many steps of it, given what is known."""
        half = self.channels // 2
        angle = step[:, None] * torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
        cond = self.time(torch.cat([angle.sin(), angle.cos()], dim=1)) + told
        h = self.begin(x)
        ways = [h]
        for part in self.down:
            h = part(h, cond) if isinstance(part, _Residual) else part(h)
            ways.append(h)
        for part in self.middle:
            h = part(h, cond) if isinstance(part, _Residual) else part(h)
        for part in self.up:
            h = part(torch.cat([h, ways.pop()], dim=1), cond) if isinstance(part, _Residual) else part(h)
        found: Tensor = self.end(h)
        return found


class _Residual(nn.Module):
    def __init__(self, n: int, m: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(_groups(n), n), nn.Conv1d(n, m, 3, padding=1)
        self.told = nn.Linear(width, m)
        self.norm2, self.conv2 = nn.GroupNorm(_groups(m), m), nn.Conv1d(m, m, 3, padding=1)
        self.skip: nn.Module = nn.Conv1d(n, m, 1) if n != m else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Any:
        h = self.conv1(F.silu(self.norm1(x))) + self.told(F.silu(cond))[:, :, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class _Attention(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.GroupNorm(_groups(n), n), nn.Conv1d(n, 3 * n, 1), nn.Conv1d(n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).transpose(1, 2).chunk(3, dim=-1)
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2))
        return x + mixed


def _groups(channels: int) -> int:
    return math.gcd(32, channels)
