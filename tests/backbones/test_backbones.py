import pytest
import torch
from torch.nn import functional as F

from mobtk import Schedule
from mobtk.backbones.gpt2 import GPT2
from mobtk.backbones.mamba import Mamba, MambaBlock
from mobtk.backbones.positions import rotate
from mobtk.backbones.transformer import Transformer
from mobtk.errors import BadInput
from mobtk.models.moe import MixtureOfExperts
from mobtk.routers.entity import EntityRouter
from mobtk.routers.input import InputRouter
from mobtk.routers.topk import route


def test_gpt2_gives_the_logits_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=50, n_positions=20, n_embd=32, n_layer=3, n_head=4)
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    ours = GPT2(32, depth=3, heads=4, longest=20).eval()
    body = theirs.transformer
    ours.positions.table.weight.data.copy_(body.wpe.weight)
    pairs = [(ours.norm, body.ln_f)]
    for mine, other in zip(ours.blocks, body.h, strict=True):
        pairs += [
            (mine.norm_attention, other.ln_1),
            (mine.qkv, other.attn.c_attn),
            (mine.attention_out, other.attn.c_proj),
            (mine.norm_ff, other.ln_2),
            (mine.ff_in, other.mlp.c_fc),
            (mine.ff_out, other.mlp.c_proj),
        ]
    for mine, other in pairs:
        mine.weight.data.copy_(other.weight.T if other.weight.ndim == 2 else other.weight)
        mine.bias.data.copy_(other.bias)
    assert sum(p.numel() for p in ours.parameters()) + body.wte.weight.numel() == theirs.num_parameters()
    ids = torch.randint(50, (2, 17))
    logits = ours(body.wte(ids), Schedule.autoregressive(17)) @ body.wte.weight.T  # the head is tied
    torch.testing.assert_close(logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_mamba_block_is_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(
        vocab_size=10, hidden_size=32, state_size=8, num_hidden_layers=2, expand=2, conv_kernel=4, use_mambapy=False
    )
    torch.manual_seed(0)
    theirs = transformers.MambaModel(config).eval()
    ours = Mamba(32, depth=2, expand=2, states=8).eval()
    for mine, norm, layer in zip(ours.blocks, ours.norms, theirs.layers, strict=True):
        mixer = layer.mixer
        norm.weight.data.copy_(layer.norm.weight)
        mine.in_proj.weight.data.copy_(mixer.in_proj.weight)
        mine.conv.weight.data.copy_(mixer.conv1d.weight)
        mine.conv.bias.data.copy_(mixer.conv1d.bias)
        mine.x_proj.weight.data.copy_(mixer.x_proj.weight)
        mine.dt_proj.weight.data.copy_(mixer.dt_proj.weight)
        mine.dt_proj.bias.data.copy_(mixer.dt_proj.bias)
        mine.A_log.data.copy_(mixer.A_log)
        mine.D.data.copy_(mixer.D)
        mine.out_proj.weight.data.copy_(mixer.out_proj.weight)
    ours.norm.weight.data.copy_(theirs.norm_f.weight)
    x = torch.randn(2, 21, 32)
    expected = theirs(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(ours(x, Schedule.autoregressive(21)), expected, atol=1e-4, rtol=1e-4)


def test_mamba_begins_with_steps_between_a_thousandth_and_a_tenth():
    steps = F.softplus(MambaBlock(64, 2, 16, 4).dt_proj.bias)
    assert steps.min() > 0.99e-3
    assert steps.max() < 0.101


def test_mamba_parameters_are_those_of_the_paper():
    width, inner, states, rank, window = 64, 128, 16, 4, 4
    expected = width * 2 * inner + inner * window + inner + inner * (rank + 2 * states) + rank * inner + inner
    expected += inner * states + inner + inner * width
    assert sum(p.numel() for p in MambaBlock(width, 2, states, window).parameters()) == expected


def test_rotary_scores_depend_on_the_difference_of_times_only():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(a, b):
        angles = (torch.tensor([[t]]) * 100.0 ** (-torch.arange(4) / 4) for t in (a, b))
        return torch.stack([rotate(x, angle) for x, angle in zip((q, k), angles, strict=True)]).prod(0).sum()

    torch.testing.assert_close(score(3.0, 1.5), score(103.0, 101.5), atol=1e-4, rtol=1e-4)
    assert (score(3.0, 1.5) - score(3.0, 0.0)).abs() > 1e-3


def test_transformer_positions_are_the_times_of_the_schedule():
    """Two tokens of different scales that stand at the same time get the same rotation."""
    model = Transformer(16, depth=1, heads=2).eval()
    x = torch.randn(1, 1, 16).expand(1, 4, 16)
    same = Schedule((2, 2), (5.0, 9.0, 5.0, 9.0))
    y = model(x, same)
    torch.testing.assert_close(y[:, 2], y[:, 3], atol=1e-5, rtol=1e-5)


def test_one_modulation_serves_all_blocks_and_begins_at_nothing():
    shallow, deep = Transformer(16, depth=1, heads=2), Transformer(16, depth=3, heads=2)
    size = sum(p.numel() for p in shallow.modulate.parameters())
    assert size == sum(p.numel() for p in deep.modulate.parameters())
    x, cond = torch.randn(2, 5, 16), torch.randn(2, 16)
    torch.testing.assert_close(deep(x, Schedule((5,)), cond), deep(x, Schedule((5,))))


@pytest.mark.parametrize(("maker", "options"), [(Transformer, {"heads": 3}), (GPT2, {"heads": 3})])
def test_heads_that_do_not_divide_the_width_are_refused(maker, options):
    with pytest.raises(BadInput, match="cannot have 3 heads"):
        maker(16, **options)


def test_mixture_sums_its_experts_with_the_weights_of_the_router():
    torch.manual_seed(0)
    experts = [Transformer(16, depth=1, heads=2) for _ in range(3)]
    router = EntityRouter(3, 16, top_k=2)
    mixture = MixtureOfExperts(router, experts, shared=GPT2(16, depth=1, heads=2)).eval()
    x, cond, schedule = torch.randn(6, 7, 16), torch.randn(6, 16), Schedule((1, 2, 4))
    routing = router(cond, x[:, :1])
    for i in range(6):
        one = slice(i, i + 1)
        expected = mixture.shared(x[one], schedule, cond[one])
        for weight, e in zip(routing.weights[i], routing.experts[i], strict=True):
            expected = expected + weight * experts[e](x[one], schedule, cond[one])
        torch.testing.assert_close(mixture(x, schedule, cond)[one], expected, atol=1e-5, rtol=1e-5)


def test_mixture_group_by_group_is_all_at_once():
    torch.manual_seed(0)
    for inner in (lambda: Transformer(16, depth=1, heads=2), lambda: Mamba(16, depth=1)):
        mixture = MixtureOfExperts(InputRouter(3, 16), [inner() for _ in range(3)], shared=inner()).eval()
        x, cond, schedule = torch.randn(9, 7, 16), torch.randn(9, 16), Schedule((1, 2, 4))
        state = mixture.new_state(9, schedule)
        parts = [mixture(x[:, g], schedule, cond, state) for g in schedule.groups()]
        torch.testing.assert_close(torch.cat(parts, 1), mixture(x, schedule, cond), atol=1e-5, rtol=1e-5)


def test_balance_is_one_when_even_and_the_number_of_experts_when_collapsed():
    even = route(20 * torch.eye(4).repeat(5, 1), 1, 1.0)
    assert even.loss.item() == pytest.approx(1.0, abs=1e-4)
    collapsed = route(torch.tensor([[20.0, 0, 0, 0]]).repeat(20, 1), 1, 1.0)
    assert collapsed.loss.item() == pytest.approx(4.0, abs=1e-4)


def test_balancing_spreads_the_sequences():
    torch.manual_seed(0)
    router = InputRouter(4, 16, balance=1.0)
    router.score[1].weight.data[0, 0] += 2.0  # nearly everything goes to expert 0
    x = torch.randn(256, 1, 16)
    x[..., 0] += 3.0
    optimizer = torch.optim.Adam(router.parameters(), lr=0.05)
    before = (router(None, x).experts == 0).float().mean().item()
    for _ in range(100):
        optimizer.zero_grad()
        router(None, x).loss.backward()
        optimizer.step()
    shares = torch.bincount(router(None, x).experts[:, 0], minlength=4) / 256
    assert before > 0.5
    assert shares.max() < 0.45


def test_top_k_above_the_experts_is_refused():
    with pytest.raises(BadInput, match="top_k=3 wants at least that many experts"):
        InputRouter(2, 16, top_k=3)
