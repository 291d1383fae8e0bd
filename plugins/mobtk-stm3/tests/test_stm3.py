"""STM3 held to what was measured on its authors' code, and to what its paper means."""

import mobtk_stm3.mixer as mixing
import pytest
import torch
from mobtk_stm3.backbone import MultiscaleMamba
from mobtk_stm3.contrast import intended_contrast, published_contrast
from mobtk_stm3.mixer import AdaptiveGraph
from mobtk_stm3.recipes import PUBLISHED, STM2, STM3
from mobtk_stm3.router import PublishedGate
from mobtk_stm3.tokenizer import Multiscale
from torch.nn import functional as F

from mobtk.errors import BadInput
from mobtk.models.assemble import assemble_forecaster
from mobtk.routers.entity import EntityRouter
from mobtk.schedule import Schedule


def _parameters(module):
    return sum(p.numel() for p in module.parameters())


ETTH1 = {"width": 48, "forecast.layers": 1, "forecast.entity": 8}


@pytest.mark.parametrize(
    ("nodes", "changes", "expected"),
    [
        (207, {}, 196_452),
        (307, {}, 197_652),
        (170, {}, 196_008),
        (184, {}, 196_176),
        (137, {}, 195_612),
        (300, {}, 197_568),
        (321, {}, 197_820),
        (300, {"forecast.layers": 1}, 174_500),
        (300, {**ETTH1}, 597_088),
        (7, {**ETTH1}, 594_744),
    ],
)
def test_published_has_the_parameters_of_the_authors_code(nodes, changes, expected):
    """One a conf file: METR-LA, PEMS04, PEMS08, KnowAir, NREL, Milan, Electricity; Milan call, Milan internet, ETTh1."""
    recipe = PUBLISHED
    for key, value in changes.items():
        recipe = recipe.change(key, value)
    model = assemble_forecaster(recipe, 1, nodes, 1, None)
    assert _parameters(model) == expected


def test_published_parameters_by_module():
    model = assemble_forecaster(PUBLISHED, 1, 170, 1, None)
    assert _parameters(model.head) == 147_552
    assert _parameters(model.mixers) == 1_536
    assert model.entity.numel() == 2_040
    assert _parameters(model.tokenizer.lift) == 8
    assert _parameters(model.tokenizer.convs) == 272
    assert _parameters(model.backbones) == 44_600
    assert _parameters(model.backbones[0].shared) == 4_448


def test_published_convolutions_run_over_nodes_and_corrected_ones_over_time():
    x = torch.randn(1, 12, 9, 1)
    changed = x.clone()
    changed[0, 5, 5] += 1
    for over, expected in (("nodes", {(5, n) for n in range(2, 9)}), ("time", {(t, 5) for t in range(2, 9)})):
        tokenizer = Multiscale(12, 1, 16, over=over)
        moved = (tokenizer(changed) - tokenizer(x)).abs().sum((0, 3, 4)) > 1e-6
        assert {tuple(i) for i in moved.nonzero().tolist()} == expected


@pytest.mark.parametrize("over", ["time", "nodes"])
def test_one_convolution_is_that_of_each_scale(over):
    tokenizer = Multiscale(12, 1, 16, over=over)
    x = torch.randn(2, 12, 9, 1)
    lifted = tokenizer.lift(x)
    along = (0, 2, 3, 1) if over == "time" else (0, 1, 3, 2)
    back = (0, 3, 1, 2) if over == "time" else (0, 1, 3, 2)
    for q, conv in enumerate(tokenizer.convs):
        rows = lifted.permute(*along)
        alone = F.conv1d(rows.flatten(0, 1), conv.weight, conv.bias, padding="same").view(*rows.shape).permute(*back)
        torch.testing.assert_close(tokenizer(x)[..., q], alone, atol=1e-5, rtol=1e-5)


def test_scales_read_coarser_ones_only(monkeypatch):
    mixer = AdaptiveGraph(None, 4, 4, 6)
    entity, x = torch.randn(5, 6), torch.randn(1, 2, 5, 4, 4)
    monkeypatch.setattr(mixing, "_normed", lambda z, norm: z)  # norms run over all scales, so they would carry any change
    for q in range(4):
        changed = x.clone()
        changed[..., q] += 1
        moved = (mixer(changed, entity) - mixer(x, entity)).abs().sum((0, 1, 2, 3)) > 1e-6
        assert moved.tolist() == [p <= q for p in range(4)]


def test_graph_convolution_is_that_of_agcrn(monkeypatch):
    """Against the formula, written out node by node."""
    mixer = AdaptiveGraph(None, 3, 2, 4)
    entity, x = torch.randn(5, 4), torch.randn(1, 1, 5, 3, 2)
    adjacency = F.relu(entity @ entity.T).softmax(-1)
    powers = [torch.eye(5), adjacency, 2 * adjacency @ adjacency - torch.eye(5)]
    z = torch.zeros(5, 3, 2)
    for n in range(5):
        for q in range(2):
            z[n, :, q] = entity[n] @ mixer.bias_pool
            for k, power in enumerate(powers):
                weight = torch.einsum("s,sio->io", entity[n], mixer.pool[:, k])
                z[n, :, q] += (power[n] @ x[0, 0, :, :, q]) @ weight
    found = []
    monkeypatch.setattr(mixing, "_normed", lambda z, norm: found.append(z) or z)
    mixer(x, entity)
    torch.testing.assert_close(found[0][..., 0], z)


def test_the_norm_is_that_of_torch():
    mixer = AdaptiveGraph(None, 3, 2, 4)
    torch.nn.init.normal_(mixer.norm.weight)
    torch.nn.init.normal_(mixer.norm.bias)
    z = torch.randn(5, 3, 2, 7)
    expected = mixer.norm(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(mixing._normed(z, mixer.norm), expected, atol=1e-5, rtol=1e-5)


def test_a_step_bias_moves_its_scale_only():
    """With projections that mix nothing, the bias of a scale changes the outputs of that scale alone."""
    backbone = MultiscaleMamba(16, scales=4)
    torch.nn.init.zeros_(backbone.x_proj.weight)
    backbone.x_proj.weight.data[backbone.rank :] = 0.1
    x, one = torch.randn(2, 12, 16), Schedule((12,))
    before = backbone(x, one)
    backbone.omega.data[2] += 1
    moved = (backbone(x, one) - before).abs().sum((0, 1)) > 1e-7
    assert moved.tolist() == [8 <= i < 12 for i in range(16)]


def test_one_convolution_is_those_of_the_scales_then_that_of_mamba():
    """Away from the first steps, before which the past is zero."""
    backbone = MultiscaleMamba(16, scales=4)
    u = torch.randn(2, 32, 30)
    parts = [
        conv(F.pad(part, (k - 1, 0)))
        for conv, k, part in zip(backbone.scale_convs, backbone.kernels, u.chunk(4, 1), strict=True)
    ]
    expected = backbone.conv(torch.cat(parts, 1))[..., 6:]
    torch.testing.assert_close(backbone._convolved(u, None)[..., 9:], expected, atol=1e-5, rtol=1e-5)


def test_published_looks_ahead_and_says_so():
    backbone = MultiscaleMamba(16, published=True)
    with pytest.raises(BadInput, match="looks ahead"):
        backbone(torch.randn(1, 4, 16), Schedule.autoregressive(4))


def test_published_initialisation_forgets_and_ours_remembers():
    """The median decay a step: .28 as published, .92 as Mamba begins."""

    def median_decay(backbone):
        step = F.softplus(backbone.dt_proj.bias)
        return torch.exp(-step[:, None] * backbone.A_log.exp()).median().item()

    published = MultiscaleMamba(256, published=True)
    assert median_decay(published) < 0.4
    for weight in (published.in_proj[0], published.out_proj[0], published.x_proj.weight):
        bound = (6 / sum(weight.shape)) ** 0.5  # Xavier's, of a matrix
        assert 0.9 * bound < weight.abs().max().item() <= bound
    assert median_decay(MultiscaleMamba(256)) > 0.8


def _features(m=64, scales=4, width=8, experts=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(m, scales, width, generator=random), dim=-1)
    return features, torch.randint(experts, (m,), generator=random)


def test_intended_contrast_is_low_where_experts_differ_and_scales_agree():
    random, experts = _features()
    own = F.normalize(torch.randn(3, 1, 8), dim=-1)[experts].expand(-1, 4, -1)
    torch.manual_seed(0)
    apart = intended_contrast(own, experts, 0.1, 0.1)
    alike = intended_contrast(own[:1].expand(64, -1, -1), experts, 0.1, 0.1)
    assert apart < intended_contrast(random, experts, 0.1, 0.1)
    assert apart < alike


def test_contrast_by_hand():
    """Two scales that agree, and no negative that counts: one choice for the fine scale, so nothing to lose."""
    features = F.normalize(torch.ones(6, 2, 3), dim=-1)
    same = torch.zeros(6, dtype=torch.long)
    assert intended_contrast(features, same, 0.1, 0.1).item() == pytest.approx(0, abs=1e-6)
    # published: positives (0, 1) and (1, 0); similarity 10 * 2^.1 above the diagonal, 0 elsewhere; ten negatives of 0
    first = torch.tensor([0.0, 10 * 2**0.1, *[0.0] * 10]).log_softmax(0)[1]
    second = torch.zeros(12).log_softmax(0)[0]
    expected = -(first + second) / 2
    torch.testing.assert_close(published_contrast(features, same, 4, 0.1, 0.1), expected)


def test_contrast_carries_gradients():
    features, experts = _features()
    for loss in (intended_contrast, lambda x, experts, *rest: published_contrast(x, experts, 3, *rest)):
        x = features.clone().requires_grad_()
        loss(x, experts, 0.1, 0.1).backward()
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0


def test_the_published_gate_hardly_learns_and_ours_does():
    torch.manual_seed(0)
    entity, features = torch.randn(64, 12), torch.randn(64, 1, 16)
    sizes = []
    for kind in (PublishedGate, EntityRouter):
        router = kind(4, 12)
        (router(entity, features).weights * torch.randn(64, 1)).sum().backward()
        sizes.append(router.score.weight.grad.abs().max().item())
    assert sizes[0] < 1e-5
    assert sizes[1] > 1e-2


@pytest.mark.parametrize("recipe", [STM3, STM2, PUBLISHED], ids=["stm3", "stm2", "published"])
def test_evaluation_is_deterministic_and_training_learns(recipe):
    torch.manual_seed(0)
    recipe = recipe.change("forecast.history", 24).change("forecast.horizon", 6)
    model = assemble_forecaster(recipe, 1, 6, 1, None)
    values = (torch.arange(30.0)[None, :, None, None] / 4 + torch.arange(6.0)[:, None]).sin().repeat(4, 1, 1, 1)
    slots = torch.zeros(4, 30, dtype=torch.long)
    assert torch.equal(model.eval()(values[:, :24], slots), model(values[:, :24], slots))
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    errors = []
    for _ in range(30):
        terms = model.loss(values, slots)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        errors.append(terms["error"].item())
    assert errors[-1] < 0.7 * errors[0]
    assert ("experts" in terms) == (recipe.experts > 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multiscale(12, 1, 10), "a width of 10 has no equal parts for 4 scales"),
        (lambda: Multiscale(12, 1, 16, kernels=(1, 2)), "kernels are odd numbers"),
        (lambda: Multiscale(12, 1, 16, over="space"), "over time or nodes, not 'space'"),
        (lambda: MultiscaleMamba(10), "a width of 10 has no equal parts for 4 scales"),
        (lambda: AdaptiveGraph(None, 4, 4, 6, order=0), "order 1 or more, not 0"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(make, message):
    with pytest.raises(BadInput, match=message):
        make()
