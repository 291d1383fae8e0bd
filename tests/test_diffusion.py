"""The diffusion baseline: it learns, denoises in any number of steps, and is DiffTraj's in size."""

from types import SimpleNamespace

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


def _points(model, monkeypatch, steps, guidance=1.0):
    """Coordinates that a generation ends with."""
    seen = []
    cells = torch.zeros(4096 * 8, 1, dtype=torch.long).numpy()
    monkeypatch.setattr(model, "tree", SimpleNamespace(query=lambda x, **_: seen.append(x) or cells))
    traits, random = torch.zeros(4096, 3, dtype=torch.long), torch.Generator().manual_seed(0)
    model.generate(traits, 8, denoising_steps=steps, guidance=guidance, generator=random)
    return seen[0]


@pytest.mark.parametrize("steps", [250, 500])  # DDIM, and DDPM
def test_with_the_best_denoiser_the_points_are_distributed_as_the_data(steps, monkeypatch):
    """Of normal data of standard deviation 0.5 the noise is best foretold by a straight line."""
    model = _model().eval()

    def noise(x, step, told):
        kept = model.kept[step][:, None, None]
        return (1 - kept).sqrt() * x / (0.25 * kept + 1 - kept)

    monkeypatch.setattr(model.net, "forward", noise)
    points = _points(model, monkeypatch, steps)
    assert points.std() == pytest.approx(0.5, rel=0.06) and abs(points.mean()) < 0.01


def test_guidance_goes_on_from_the_unknown_through_the_known(monkeypatch):
    """Points of the known lie at 0.5, of the unknown at 0.2: asking for three times the difference is 1.1."""
    model = _model(noise_steps=100).eval()

    def noise(x, step, told):
        kept = model.kept[step][:, None, None]
        at = torch.where((told == model.unknown).all(1), 0.2, 0.5)[:, None, None]
        return (x - kept.sqrt() * at) / (1 - kept).sqrt()

    monkeypatch.setattr(model.net, "forward", noise)
    assert _points(model, monkeypatch, 25).mean() == pytest.approx(0.5, abs=1e-3)
    assert _points(model, monkeypatch, 25, guidance=3.0).mean() == pytest.approx(1.1, abs=1e-3)


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


@pytest.mark.parametrize(("options", "said"), [({"noise_steps": 10}, "at least 50"), ({"channels": 3}, "even number")])
def test_a_diffusion_that_cannot_be_is_refused(options, said):
    with pytest.raises(BadInput, match=said):
        TrajectoryDiffusion(Grid(CRS, ORIGIN, (4, 4)), TRAITS, **options)


def test_it_fits_a_dataset(city, monkeypatch):
    model = fit_diffusion(city, channels=8, epochs=1, batch=32)
    assert not model.training and all(p.isfinite().all() for p in model.parameters())
    monkeypatch.setattr(city.info, "steps", 100)
    with pytest.raises(BadInput, match="multiple of 8"):
        fit_diffusion(city, channels=8)
