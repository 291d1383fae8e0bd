import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mobtk.errors import BadInput
from mobtk.testing.fixtures import small_mapper, stays
from mobtk.tokenizers.cells import CellTokens, beside
from mobtk.tokenizers.codebook import Codebook
from mobtk.tokenizers.heads import CategoricalHead, draw
from mobtk.tokenizers.rvq import ResidualVQ, default_lengths, turns_of


def test_default_lengths_are_mstars_for_a_week_and_fit_any_number_of_steps():
    assert default_lengths(168) == (1, 7, 14, 28, 56, 84, 112, 168)
    assert default_lengths(24) == (1, 2, 4, 8, 12, 16, 24)
    for steps in range(1, 60):
        lengths = default_lengths(steps)
        assert lengths[-1] == steps
        assert list(lengths) == sorted(set(lengths))


@pytest.mark.parametrize("steps", [2, 24, 25, 168])
@pytest.mark.parametrize("lengths", [None, [1], [2, 1], [1, 2, 2]])
def test_any_number_of_steps_and_any_lengths(steps, lengths):
    mapper = small_mapper()
    tokenizer = ResidualVQ(mapper, steps, 16, lengths=lengths, codes=32, code_width=4).eval()
    x = stays(mapper, n=3, steps=steps)
    tokens = tokenizer.encode(x)
    assert tokens.shape == (3, tokenizer.schedule.n_tokens)
    assert tokenizer.decode(tokens).shape == x.shape
    assert torch.isfinite(tokenizer.loss(x)["cells"])


@pytest.mark.parametrize(
    ("lengths", "turns", "lag"),
    [([1, 4, 24], 24, 0), ([1, 24], 6, 0), ([1, 24], 6, 2), ([24], 5, 1), ([1, 24], 6, 6), ([1, 2, 24], 1, 0)],
)
def test_turns_decide_the_last_scale_step_after_step(lengths, turns, lag):
    mapper = small_mapper()
    torch.manual_seed(0)
    options = {"lengths": lengths, "codes": 32, "code_width": 4}
    tokenizer = ResidualVQ(mapper, 24, 32, **options, turns=turns, lag=lag).eval()
    x = stays(mapper)
    tokens = tokenizer.encode(x)
    schedule = tokenizer.schedule
    assert schedule.lengths[: len(lengths) - 1] == tuple(lengths[:-1])
    windows = -(-24 // turns)
    assert schedule.n_groups <= len(lengths) - 1 + turns + lag * (windows - 1)
    for k in range(len(lengths) - 1, schedule.n_groups):
        of_turn = {t % turns + lag * (t // turns) for t in schedule.times[schedule.group(k)]}
        assert of_turn == {k - len(lengths) + 1}
    whole, state = tokenizer.inputs(tokens), {}
    for k, group in enumerate(schedule.groups()):
        torch.testing.assert_close(tokenizer.next_inputs(tokens[:, : group.start], k, state), whole[:, group])
        mixed = torch.cat([tokens[:, : group.start], torch.randint(32, tokens[:, group.start :].shape)], dim=1)
        torch.testing.assert_close(tokenizer.inputs(mixed)[:, group], whole[:, group])
    at_once = ResidualVQ(mapper, 24, 32, **options).eval()
    at_once.codec.load_state_dict(tokenizer.codec.state_dict())
    assert torch.equal(at_once.decode(at_once.encode(x)), tokenizer.decode(tokens)), "the same codes, in another order"


@pytest.mark.parametrize("turns", [1, 24])
def test_a_categorical_head_needs_no_room_for_codes(turns):
    mapper, lengths = small_mapper(), [1, 4, 24]
    tokenizer = ResidualVQ(mapper, 24, 8, lengths=lengths, codes=32, code_width=8, head="categorical", turns=turns).eval()
    assert isinstance(tokenizer.head, CategoricalHead)
    whole, state = tokenizer.inputs(tokens := tokenizer.encode(stays(mapper))), {}
    assert whole.shape == (6, 29, 8)
    for k, group in enumerate(tokenizer.schedule.groups()):
        torch.testing.assert_close(tokenizer.next_inputs(tokens[:, : group.start], k, state), whole[:, group])
    with pytest.raises(BadInput, match="a width of 8 cannot hold . codes of 8.*head=categorical"):
        ResidualVQ(mapper, 24, 8, lengths=lengths, code_width=8)
    with pytest.raises(BadInput, match="head is places or categorical, not 'softmax'"):
        ResidualVQ(mapper, 24, 8, lengths=lengths, head="softmax")


def test_what_a_token_looks_back_to_by_hand():
    turn, past_of = turns_of(6, turns=3, lag=1)
    assert turn.tolist() == [0, 1, 2, 1, 2, 3]
    assert past_of.T.tolist() == [[-1, 0, 1, -1, 3, 4], [-1, 0, 0, 0, 3, 3], [-1, -1, -1, 0, 1, 2]]
    assert turns_of(6, turns=3, lag=0)[1].T.tolist() == [[-1, 0, 1, -1, 3, 4], [-1, 0, 0, -1, 3, 3]]
    assert turns_of(6, turns=1, lag=0)[1].shape == (6, 0)


def test_turns_want_a_token_a_step():
    with pytest.raises(BadInput, match="turns=4 wants a last scale of 24 tokens"):
        ResidualVQ(small_mapper(), 24, 16, lengths=[1, 12], turns=4)
    with pytest.raises(BadInput, match=r"lag=7 lies in 0\.\.6"):
        ResidualVQ(small_mapper(), 24, 16, lengths=[1, 24], turns=6, lag=7)


@pytest.mark.parametrize("lengths", [[0, 24], [1, 25]])
def test_lengths_outside_the_steps_are_refused(lengths):
    with pytest.raises(BadInput, match=r"must lie in 1\.\.24"):
        ResidualVQ(small_mapper(), 24, 16, lengths=lengths)


def test_scales_read_the_levels_mstar_means():
    codec = ResidualVQ(small_mapper(), 168, 16).codec
    assert codec.level_of == [3, 3, 2, 2, 1, 1, 0, 0]


def test_averages_are_adaptive_pooling_and_upsampling_is_bicubic():
    codec = ResidualVQ(small_mapper(), 168, 16, code_width=4, up="cubic").codec
    x = torch.randn(2, 168, 4)
    for k, n in enumerate(codec.lengths):
        pooled = F.adaptive_avg_pool1d(x.transpose(1, 2), n).transpose(1, 2)
        torch.testing.assert_close(codec.shrink(k, x), pooled, atol=1e-5, rtol=1e-5)
        spread = F.interpolate(pooled.transpose(1, 2)[:, None], size=(4, 168), mode="bicubic", align_corners=False)
        refined = codec.refine(k, torch.zeros(2, 168, 4), pooled)  # the convolution begins at zero
        torch.testing.assert_close(refined, spread[:, 0].transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_a_scale_sees_and_repairs_the_error_of_those_before():
    """With error feedback, a second scale of the same length brings the decoded feature closer to the encoded one."""
    torch.manual_seed(0)
    mapper = small_mapper()
    one = ResidualVQ(mapper, 24, 16, lengths=[24], codes=16, code_width=2, depth=0).codec
    two = ResidualVQ(mapper, 24, 16, lengths=[24, 24], codes=16, code_width=2, depth=0).codec
    x = stays(mapper, n=64)
    for codec in (one, two):
        codec.train()
        for _ in range(30):
            codec.quantise(x)
        codec.eval()
    errors = [(c.embed[0](x) - c.quantise(x)[1]).square().mean().item() for c in (one, two)]
    assert errors[1] < 0.6 * errors[0]


def test_training_decodes_people_it_has_not_seen(city):
    torch.manual_seed(0)
    mapper = city.mapper()
    cells = torch.from_numpy(city.cells.copy())
    tokenizer = ResidualVQ(mapper, 168, 16, codes=256)
    optimizer = torch.optim.AdamW(tokenizer.codec.parameters(), lr=1e-3)
    train, held_out = cells[city.rows("train")], cells[city.rows("test")]
    before = tokenizer.eval().health(held_out)["accuracy"]
    tokenizer.codec.train()
    for _ in range(20):
        optimizer.zero_grad()
        sum(tokenizer.loss(train[:64]).values()).backward()
        optimizer.step()
    health = tokenizer.eval().health(held_out)
    assert before < health["accuracy"]
    assert health["accuracy"] > 0.95
    assert health["codes_used"] > 50


def test_dead_codes_come_back_and_without_revival_they_do_not():
    torch.manual_seed(0)
    x = torch.randn(1, 512, 4) + 5.0
    used = {}
    for revive in (0.0, 0.1):
        codebook = Codebook(64, 4, decay=0.9, revive=revive, rate=0.0)
        for _ in range(40):
            codebook.update(x, codebook.nearest(x))
        used[revive] = len(codebook.nearest(x).unique())
    assert used[0.0] < 8
    assert used[0.1] > 40


def test_nearest_is_the_nearest():
    codebook = Codebook(50, 3, decay=0.9, revive=0.1, rate=0.0)
    x = torch.randn(5, 7, 3)
    distance = (x[..., None, :] - codebook.table).square().sum(-1)
    assert torch.equal(codebook.nearest(x), distance.argmin(-1))


def test_averages_settle_on_the_means_of_what_chose_a_code():
    torch.manual_seed(0)
    codebook = Codebook(2, 1, decay=0.5, revive=0.1, rate=0.0)
    x = torch.tensor([[[0.0], [0.2], [10.0], [10.4]]])
    for _ in range(60):
        codebook.update(x, codebook.nearest(x))
    assert sorted(codebook.table[:, 0].tolist()) == pytest.approx([0.1, 10.2], abs=1e-3)


def test_a_rate_prefers_common_codes():
    codebook = Codebook(2, 1, decay=0.5, revive=0.1, rate=1.0)
    codebook.table.copy_(torch.tensor([[0.0], [1.0]]))
    codebook.uses.copy_(torch.tensor([100.0, 1.0]))
    assert codebook.nearest(torch.tensor([[0.9]])).item() == 0, "the rare code is nearer, and dearer"
    codebook.rate = 0.0
    assert codebook.nearest(torch.tensor([[0.9]])).item() == 1


def test_cells_are_their_own_tokens():
    mapper = small_mapper()
    x = stays(mapper)
    tokenizer = CellTokens(mapper, 24, 16)
    assert torch.equal(tokenizer.encode(x), x)
    assert tokenizer.head.project.weight is tokenizer.embed.weight
    assert CellTokens(mapper, 24, 16, tied=False).head.project.weight is not tokenizer.embed.weight


LOGITS = torch.tensor([[[2.0, 1.0, 0.0, -1.0]]]).expand(20_000, 1, 4)


def _shares(**options):
    drawn = draw(LOGITS, generator=torch.Generator().manual_seed(0), **options)
    return np.bincount(drawn.ravel().numpy(), minlength=4) / len(LOGITS)


def test_draws_follow_the_softmax():
    p = LOGITS[0, 0].softmax(-1).numpy()
    assert _shares() == pytest.approx(p, abs=0.015)
    hot = (LOGITS[0, 0] / 2).softmax(-1).numpy()
    assert _shares(temperature=2.0) == pytest.approx(hot, abs=0.015)


def test_top_k_keeps_the_k_likeliest():
    p = LOGITS[0, 0, :2].softmax(-1).numpy()
    assert _shares(top_k=2) == pytest.approx([*p, 0, 0], abs=0.015)
    assert _shares(top_k=99) == pytest.approx(_shares(), abs=0.015)


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    p = LOGITS[0, 0].softmax(-1)  # 0.644, 0.237, 0.087, 0.032
    assert _shares(top_p=0.6) == pytest.approx([1, 0, 0, 0])
    assert _shares(top_p=0.7) == pytest.approx([*(p[:2] / p[:2].sum()).tolist(), 0, 0], abs=0.015)
    assert _shares(top_p=1.0) == pytest.approx(p.numpy(), abs=0.015)


def test_min_p_drops_what_is_much_less_likely_than_the_likeliest():
    p = LOGITS[0, 0].softmax(-1)
    assert _shares(min_p=0.3) == pytest.approx([*(p[:2] / p[:2].sum()).tolist(), 0, 0], abs=0.015)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_shared_numbers_change_no_tokens_distribution_and_make_equals_agree(options):
    logits = LOGITS.expand(-1, 3, -1)
    share = torch.tensor([0, 0, 1])
    drawn = draw(logits, share=share, generator=torch.Generator().manual_seed(0), **options)
    assert torch.equal(drawn[:, 0], drawn[:, 1]), "equal distributions, shared numbers: equal tokens"
    assert (drawn[:, 0] != drawn[:, 2]).any(), "other numbers for the other window"
    for i in range(3):
        shares = np.bincount(drawn[:, i].numpy(), minlength=4) / len(LOGITS)
        assert shares == pytest.approx(_shares(**options), abs=0.02)


def test_temperature_zero_is_the_likeliest():
    assert draw(LOGITS, 0.0).unique().tolist() == [0]


def test_loss_is_the_negative_log_likelihood():
    head = CategoricalHead(8, 5)
    hidden, tokens = torch.randn(2, 3, 8), torch.randint(5, (2, 3))
    expected = -head.logits(hidden, hidden).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(head.loss(hidden, hidden, tokens), expected)


def test_top_k_and_top_p_together_with_shared_numbers():
    logits = torch.tensor([9.0, 0.0, 8.0, 1.0, 7.0]).expand(2000, 2, 5)
    options = {"top_k": 3, "top_p": 0.95, "share": torch.tensor([0, 0]), "generator": torch.Generator().manual_seed(0)}
    drawn = draw(logits, **options)
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    p = torch.tensor([9.0, 8.0]).softmax(0)
    assert set(drawn.unique().tolist()) == {0, 2, 4} or set(drawn.unique().tolist()) == {0, 2}
    assert abs((drawn == 2).float().mean() / (drawn == 0).float().mean() - p[1] / p[0]) < 0.06


@pytest.mark.parametrize("passes", [1, 2, 5, 8, 24])
def test_masked_cells_read_the_nearest_decided_cells_on_both_sides(passes):
    mapper = small_mapper()
    tokenizer = CellTokens(mapper, 24, 16, passes=passes)
    schedule = tokenizer.schedule
    assert schedule.n_groups == passes and schedule.family == ("masked" if passes > 1 else "at once")
    step, group = [int(t) for t in schedule.times], schedule.group_of().tolist()
    before, after = (x.tolist() for x in beside(schedule))
    for i in range(24):
        known = [j for j in range(24) if group[j] < group[i]]
        left, right = [j for j in known if step[j] < step[i]], [j for j in known if step[j] > step[i]]
        assert before[i] == max(left, key=lambda j: step[j], default=-1)
        assert after[i] == min(right, key=lambda j: step[j], default=-1)


def test_in_order_is_what_a_language_model_reads():
    tokenizer, x = CellTokens(small_mapper(), 24, 16), stays(small_mapper())
    assert torch.equal(tokenizer.encode(x), x)
    shifted = torch.cat([tokenizer.start.expand(len(x), 1, -1), tokenizer.embed(x[:, :-1])], dim=1)
    assert torch.equal(tokenizer.inputs(x), shifted + tokenizer.when)


@pytest.mark.parametrize("passes", [0, 25])
def test_passes_are_one_to_as_many_as_steps(passes):
    with pytest.raises(BadInput, match=r"lies in 1\.\.24"):
        CellTokens(small_mapper(), 24, 16, passes=passes)
