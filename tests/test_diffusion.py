"""The diffusion baseline: it learns, denoises in any number of steps, and is DiffTraj's in size."""

import numpy as np
import pytest
import torch

from mobtk.baselines.diffusion import TrajectoryDiffusion, UNet, fit_diffusion
from mobtk.data.city import CRS, ORIGIN
from mobtk.errors import BadInput
from mobtk.mappers.grid import Grid

TRAITS = {"home": 16, "work": 16, "cluster": 8}


def _model(**options):
    torch.manual_seed(0)
    return TrajectoryDiffusion(Grid(CRS, ORIGIN, (4, 4)), TRAITS, channels=16, **options)


def test_it_costs_what_difftraj_does():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as count:
        UNet(128)(torch.randn(1, 2, 168), torch.zeros(1, dtype=torch.long), torch.zeros(1, 512))
    assert count.get_total_flops() / 1e9 == pytest.approx(1.304, rel=0.01)  # 1,304 GFLOP in 500 steps with guidance


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_it_draws_cells_in_any_number_of_steps(steps):
    model, traits = _model(noise_steps=50).eval(), torch.zeros(3, 3, dtype=torch.long)

    def drawn(seed, **options):
        return model.generate(traits, 24, denoising_steps=steps, generator=torch.Generator().manual_seed(seed), **options)

    cells = drawn(0)
    assert cells.shape == (3, 24) and cells.min() >= 0 and cells.max() < 16
    assert torch.equal(cells, drawn(0)) and not torch.equal(cells, drawn(1))
    assert drawn(0, guidance=3.0).shape == (3, 24)


def test_one_step_too_many_is_refused():
    with pytest.raises(BadInput, match="1 to 50 steps, not 51"):
        _model(noise_steps=50).generate(torch.zeros(1, 3, dtype=torch.long), 24, denoising_steps=51)


@pytest.mark.parametrize("steps", [5, 50])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_who_knows_the_noise_gets_the_sequence_back(steps, guidance, monkeypatch):
    model = _model(noise_steps=50).eval()
    wanted = torch.randint(16, (4, 24), generator=torch.Generator().manual_seed(1))
    clean = model.xy[wanted].transpose(1, 2)

    def noise(x, step, told):
        kept = model.kept[step][:, None, None]
        return (x - kept.sqrt() * clean) / (1 - kept).sqrt()

    monkeypatch.setattr(model.net, "forward", noise)
    traits, random = torch.zeros(4, 3, dtype=torch.long), torch.Generator().manual_seed(0)
    assert torch.equal(model.generate(traits, 24, denoising_steps=steps, guidance=guidance, generator=random), wanted)


def test_it_learns_the_noise():
    model = _model(noise_steps=100)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    home = torch.tensor([0, 15]).repeat_interleave(16)
    traits, losses = torch.stack([home, home, torch.zeros_like(home)], dim=1), []
    for _ in range(80):
        loss = model.loss(home[:, None].expand(-1, 24), traits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:3])


def test_it_fits_a_dataset(city, monkeypatch):
    model = fit_diffusion(city, channels=8, epochs=1, batch=32)
    assert not model.training and all(p.isfinite().all() for p in model.parameters())
    monkeypatch.setattr(city.info, "steps", 100)
    with pytest.raises(BadInput, match="multiple of 8"):
        fit_diffusion(city, channels=8)
