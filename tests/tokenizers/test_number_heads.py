"""Heads over numbers: likelihoods as torch's own, and draws that follow them."""

import pytest
import torch
from torch.distributions import Categorical, Independent, Laplace, MixtureSameFamily, Normal

from mobtk.tokenizers.number_heads import CellsHead, GaussianMixtureHead, RegressionHead

WIDTH, CHANNELS = 8, 3
HEADS = [RegressionHead, GaussianMixtureHead]


def _head(kind):
    torch.manual_seed(0)
    head = kind(WIDTH, CHANNELS)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn(p.shape))
    return head


def _distribution(head, hidden):
    if isinstance(head, RegressionHead):
        width = torch.nn.functional.softplus(head.spread) + 1e-3
        return Independent(Laplace(head.centre(hidden), width.expand(*hidden.shape[:2], CHANNELS)), 1)
    log_weight, centre, width = head.mixture(hidden)
    return MixtureSameFamily(Categorical(logits=log_weight), Independent(Normal(centre, width), 1))


@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_is_the_likelihood(kind):
    head, hidden, tokens = _head(kind), torch.randn(2, 5, WIDTH), torch.randn(2, 5, CHANNELS)
    torch.testing.assert_close(head.loss(hidden, hidden, tokens), -_distribution(head, hidden).log_prob(tokens))
    head.loss(hidden, hidden, tokens).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_draws_follow_the_distribution(kind):
    head, hidden = _head(kind), torch.randn(1, 1, WIDTH).expand(1, 40_000, WIDTH)
    random = torch.Generator().manual_seed(1)
    drawn = head.sample(hidden, hidden, generator=random)[0]
    expected = _distribution(head, hidden[:, :1])
    torch.testing.assert_close(drawn.mean(0), expected.mean[0, 0], atol=0.05, rtol=0.05)
    torch.testing.assert_close(drawn.std(0), expected.variance[0, 0].sqrt(), atol=0.05, rtol=0.05)
    likelihood = head.loss(hidden[:, :1000], hidden[:, :1000], drawn[None, :1000]).mean()
    torch.testing.assert_close(likelihood, -expected.log_prob(expected.sample((1000,))).mean(), atol=0.15, rtol=0.1)


@pytest.mark.parametrize("kind", HEADS)
def test_temperature_nothing_is_the_likeliest_and_always_the_same(kind):
    head, hidden = _head(kind), torch.randn(2, 4, WIDTH)
    a, b = (head.sample(hidden, hidden, temperature=0) for _ in range(2))
    assert torch.equal(a, b)
    cold = head.sample(hidden, hidden, temperature=1e-6)
    torch.testing.assert_close(cold, a, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", HEADS)
def test_tokens_that_share_random_numbers_agree_where_they_can(kind):
    head, hidden = _head(kind), torch.randn(3, 1, WIDTH).expand(3, 6, WIDTH)
    drawn = head.sample(hidden, hidden, share=torch.tensor([0, 0, 1, 1, 1, 2]))
    assert torch.equal(drawn[:, 0], drawn[:, 1]) and torch.equal(drawn[:, 2], drawn[:, 4])
    assert not torch.equal(drawn[:, 1], drawn[:, 2])


def test_left_or_right_is_not_the_middle():
    """After a fit to two ways, the mixture draws both and the regression the middle or one of them."""
    torch.manual_seed(0)
    hidden = torch.ones(1, 400, WIDTH)
    ways = torch.where(torch.rand(1, 400, 1) < 0.5, -5.0, 5.0).expand(1, 400, CHANNELS) + 0.1 * torch.randn(1, 400, CHANNELS)
    head = GaussianMixtureHead(WIDTH, CHANNELS, components=4)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        head.loss(hidden, hidden, ways).mean().backward()
        optimizer.step()
    drawn = head.sample(hidden, hidden, generator=torch.Generator().manual_seed(0))[0, :, 0]
    assert 0.3 < (drawn > 0).float().mean() < 0.7
    assert (drawn.abs() > 3).float().mean() > 0.95


def test_cells_make_a_density():
    """Over the plane the likelihood of a number adds up to 1; draws follow it; what is far out counts as the outermost."""
    torch.manual_seed(0)
    head, hidden = CellsHead(WIDTH, 1, bins=9, reach=10.0), torch.randn(1, 1, WIDTH)
    grid = torch.linspace(-10, 10, 20_001)[None, :, None]
    many = hidden.expand(1, 20_001, WIDTH)
    density = (-head.loss(many, many, grid)).exp()
    assert density.sum().item() * 0.001 == pytest.approx(1, abs=0.01)
    drawn = head.sample(many, many, generator=torch.Generator().manual_seed(0))[0, :, 0]
    mean = (density[0] * grid[0, :, 0]).sum().item() * 0.001
    assert drawn.mean().item() == pytest.approx(mean, abs=0.15)
    assert head.loss(hidden, hidden, torch.full((1, 1, 1), 1e6)).isfinite().all()


def test_a_cell_is_found_again():
    """Each of two numbers has its own bins: the middle of the likeliest cell lies in the cell that was learned."""
    torch.manual_seed(0)
    hidden, told = torch.eye(4)[None], torch.tensor([[[0.0, 5.0], [-3.0, 0.2], [8.0, -8.0], [0.1, 0.1]]])
    head = CellsHead(4, 2, bins=21, reach=10.0)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(hidden, hidden, told).mean().backward()
        optimizer.step()
    found = head.sample(hidden, hidden, temperature=0)
    assert (found.asinh() - told.asinh()).abs().max() <= head.size / 2 + 1e-5
