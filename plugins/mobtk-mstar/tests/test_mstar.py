"""M-STAR against what was measured on the authors' code: sizes, pairing, and the promises of encode, decode and cache."""

import msgspec
import pytest
import torch
from mobtk_mstar.head import confidence
from mobtk_mstar.recipes import CORRECTED, MSTAR, PUBLISHED, SMALL
from mobtk_mstar.tokenizer import GradientCodebook, MSTTokenizer, rows_of

import mobtk
from mobtk.data.city import CRS, ORIGIN
from mobtk.errors import BadInput
from mobtk.mappers.grid import Grid
from mobtk.models.assemble import assemble
from mobtk.recipe import Part
from mobtk.testing import cases
from mobtk.testing.fixtures import small_mapper, stays

SIZES = {"home": 900, "work": 900, "cluster": 8}


@pytest.mark.parametrize(("part", "law"), cases("mstar"))
def test_law(part, law):
    law(part)


def _count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def published():
    return assemble(PUBLISHED, Grid(CRS, ORIGIN, (30, 30)), 168, SIZES).eval()


def test_sizes_are_the_authors_to_the_unit(published):
    codec = published.tokenizer.codec
    assert _count(codec.embed) == 308_480
    assert _count(codec.encoder) == _count(codec.decoder) == 1_579_520
    assert _count(codec.phi) == 2_302_720 - 3_584  # less seven layer norms that nothing uses
    assert _count(codec.codebook) == 1_048_576
    assert _count(codec.output) == 231_300
    assert _count(codec) == 7_066_756 - 16_640 - 3_584  # less an unused projection, too
    backbone = published.backbone
    assert _count(backbone.blocks) == 3_154_944
    assert [_count(m) for m in backbone.modulate.values()] == [787_968] * 3
    assert _count(published.tokenizer.head) == 1_052_672
    assert published.tokenizer.position.numel() == 120_320
    assert _count(published.traits.place) == 115_200
    assert _count(published) - _count(codec) == 6_877_184


def test_the_schedule_is_the_paper_s(published):
    schedule = published.tokenizer.schedule
    assert schedule.lengths == (1, 7, 14, 28, 56, 84, 112, 168) and schedule.n_tokens == 470
    assert int((~schedule.mask()).sum()) == 84_455


def test_rows_are_paired_as_published_and_as_intended(published):
    assert rows_of(8, "published") == [0, 7, 6, 5, 4, 3, 2, 0]
    assert rows_of(8, "intended") == [7, 6, 5, 4, 3, 2, 1, 0]
    assert published.tokenizer.codec.level_of == [0, 3, 3, 2, 2, 1, 1, 0]
    corrected = assemble(CORRECTED, Grid(CRS, ORIGIN, (30, 30)), 168, SIZES)
    assert corrected.tokenizer.codec.level_of == [3, 3, 2, 2, 1, 1, 0, 0]


OPTIONS = [
    {},
    {"pairing": "published", "feedback": False, "codebook": "gradient"},
    {"feedback": False},
    {"codebook": "gradient"},
]


def _small(**options):
    torch.manual_seed(0)
    return MSTTokenizer(small_mapper(), 24, 16, codes=32, heads=2, **options).eval()


@pytest.mark.parametrize("options", OPTIONS)
def test_encoded_and_decoded_is_the_forward_pass(options):
    tokenizer, x = _small(**options), stays(small_mapper(), n=20)
    with torch.no_grad():
        said, _ = tokenizer.codec.learn(tokenizer.codec.features(x))
        forward = tokenizer.codec.places(said).argmax(-1)
    assert torch.equal(tokenizer.decode(tokenizer.encode(x)), forward)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_setting_learns(options):
    tokenizer, x = _small(**options).train(), stays(small_mapper(), n=20)
    optimizer = torch.optim.Adam(tokenizer.codec.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        terms = tokenizer.loss(x)
        sum(terms.values()).backward()
        optimizer.step()
        losses.append(terms["cells"].item())
    assert losses[-1] < 0.9 * losses[0]
    by_average = options.get("feedback", True) and "codebook" not in options
    assert set(terms) == {"cells", "commit"} | (set() if by_average else {"codebook"})


def test_a_scale_repairs_what_the_scales_before_got_wrong_only_with_feedback():
    x = stays(small_mapper(), n=20)
    with_it, without = _small(), _small(feedback=False)
    without.load_state_dict(with_it.state_dict())
    for tokenizer, sees in ((with_it, True), (without, False)):
        codec = tokenizer.codec
        features = codec.features(x)
        before = codec.quantise(features)[1]
        codec.codebook.table += 5.0  # every code says something else than it did
        after = codec.quantise(features)[1]
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1]) != sees


def test_cached_generation_is_the_teacher_forced_pass(published):
    tokens = torch.randint(4096, (2, 470), generator=torch.Generator().manual_seed(0))
    traits = torch.tensor([[3, 5, 1], [700, 700, 4]])
    schedule = published.tokenizer.schedule
    with torch.inference_mode():
        whole, cond = published.inputs(tokens, traits)
        logits = published.tokenizer.head.logits(published.backbone(whole, schedule, cond), whole)
        state, draft = published.backbone.new_state(2, schedule), {}
        for k, group in enumerate(schedule.groups()):
            x = published.tokenizer.next_inputs(tokens[:, : group.start], k, draft)
            x = x + cond[:, None] if k == 0 else x
            assert torch.allclose(x, whole[:, group], atol=1e-5)
            step = published.tokenizer.head.logits(published.backbone(x, schedule, cond, state), x)
            assert torch.allclose(step, logits[:, group], atol=1e-5)


def test_smoothing_takes_an_hour_away_in_generation_only():
    tokenizer, x = _small(smooth=True), stays(small_mapper(), n=20)
    plain = _small()
    plain.load_state_dict(tokenizer.state_dict())
    tokens = tokenizer.encode(x)
    assert not torch.equal(tokenizer.decode(tokens), plain.decode(tokens))
    assert tokenizer.health(x) == plain.health(x)


def test_the_surest_token_is_drawn_coldest():
    logits = torch.zeros(1, 3, 4)
    logits[0, :, 0] = torch.tensor([1.0, 3.0, 2.0])
    assert torch.allclose(confidence(logits), torch.tensor([[0.0, 1.0, 0.5]]))
    assert torch.equal(confidence(torch.randn(5, 1, 4)), torch.zeros(5, 1))
    head = _small().head
    hidden = torch.randn(1, 3, 16).expand(4000, -1, -1)
    p = (head.logits(hidden, hidden)[0] / (1.5 - confidence(head.logits(hidden[:1], hidden[:1])))[0][:, None]).softmax(-1)
    drawn = head.sample(hidden, hidden, generator=torch.Generator().manual_seed(0))
    found = torch.stack([torch.bincount(drawn[:, i], minlength=32) / 4000 for i in range(3)])
    assert (found - p).abs().max() < 0.03


def test_a_gradient_codebook_looks_at_angles():
    book = GradientCodebook(3, 2)
    book.table.data = torch.tensor([[10.0, 0.0], [0.0, 0.1], [-1.0, -1.0]])
    assert book.nearest(torch.tensor([[0.1, 0.0], [0.2, 5.0], [-7.0, -7.0]])).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [1, 12]}, "end with 24"),
        ({"pairing": "mine"}, "pairing is intended or published"),
        ({"heads": 3}, "cannot have 3 heads"),
        ({"hottest": 1.0}, "hottest above 1"),
        ({"depth": 0}, "depth are at least 1"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(BadInput, match=message):
        MSTTokenizer(small_mapper(), 24, 16, **{"heads": 2} | options)


@pytest.mark.parametrize("recipe", [MSTAR, SMALL, PUBLISHED, CORRECTED])
def test_recipes_train_and_generate(recipe, tmp_path):
    small = msgspec.convert(msgspec.to_builtins(recipe), type(recipe))
    small.width = 32
    small.tokenizer.options |= {"codes": 16}
    if small.tokenizer.name == "mobtk.rvq":
        small.tokenizer.options |= {"code_width": 4}
    small.tokenizer.options |= {"heads": 2} if "heads" in small.tokenizer.options else {}
    small.backbone = Part(small.backbone.name, {"depth": 1, "heads": 2})
    for stage in (small.training.tokenizer, small.training.generator):
        stage.epochs, stage.batch = 1, 32
    run = mobtk.build(small, tmp_path / "run", weeks=100)
    mobtk.train(run)
    assert run.model().tokenizer.schedule.n_groups == 8
    mobtk.generate(run, 10)
    result = mobtk.evaluate(run, n=10, repeats=1)
    assert set(result["scores"]["model"]) >= {"distance", "radius", "duration", "dailyloc"}


def test_one_scale_will_do():
    tokenizer, x = _small(lengths=[24]), stays(small_mapper(), n=4)
    tokens = tokenizer.encode(x)
    assert tokenizer.inputs(tokens).shape == (4, 24, 16) and tokenizer.decode(tokens).shape == x.shape
