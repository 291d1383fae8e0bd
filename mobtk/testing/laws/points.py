"""Laws of tokenizers of points."""

from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from mobtk.backbones.transformer import Transformer
from mobtk.contracts import (
    Paths,
    PointTokenizer,
    PointTokens,
    State,
)
from mobtk.data.trajectories import Trajectory
from mobtk.geo import from_local
from mobtk.models.completer import Completer
from mobtk.models.paths import collate, nothing_hidden
from mobtk.testing.fixtures import WIDTH, walks
from mobtk.testing.laws.common import Law, all_learn, options_have_defaults, same, seeded


def _point_tokenizer(kind: type[PointTokenizer]) -> tuple[Any, Paths]:
    paths = walks()
    tokenizer = seeded(lambda: kind(WIDTH)).eval()
    tokenizer.fit(paths)
    n = paths.time.shape[1] // tokenizer.patch * tokenizer.patch
    return tokenizer, _first(paths, n)


def _first(paths: Paths, n: int) -> Paths:
    """The first ``n`` points of each."""
    parts = (x[:, :n] for x in (paths.place, paths.time, paths.hidden_place, paths.hidden_time))
    place, time, hidden_place, hidden_time = parts
    return Paths(place, time, paths.start, hidden_place, hidden_time, paths.lengths.clamp(max=n))


def _onward(tokenizer: Any, paths: Paths) -> PointTokens:
    return tokenizer.onward(paths, 0, paths.time.shape[1] // tokenizer.patch, {})


def _same_tokens(a: PointTokens, b: PointTokens, message: str, tokens: int | None = None, patch: int = 1) -> None:
    """The first so many tokens are the same, what their numbers mean included."""
    points = None if tokens is None else tokens * patch
    same(a.inputs[:, :tokens], b.inputs[:, :tokens], message)
    for name in ("place", "time", "metres", "seconds"):
        same(getattr(a, name)[:, :points], getattr(b, name)[:, :points], f"{message}: {name}")


def point_tokens_fit(kind: type[PointTokenizer]) -> None:
    """There is a token a patch and an anchor and a unit a point, both ways, and units are above 0."""
    tokenizer, paths = _point_tokenizer(kind)
    b, n = paths.time.shape
    for tokens in (tokenizer.at_once(paths), _onward(tokenizer, paths)):
        assert tokens.inputs.shape == (b, n // tokenizer.patch, WIDTH), f"inputs have shape {tuple(tokens.inputs.shape)}"
        assert tokens.inputs.isfinite().all(), "some input is not finite"
        assert tokens.place.shape == (b, n, 2) and tokens.time.shape == (b, n), "there is not an anchor a point"
        assert (tokens.metres > 0).all() and (tokens.seconds > 0).all(), "some unit is not above 0"
        assert tokenizer.apart(tokens.inputs).shape == (b, n, WIDTH), "hidden states do not come apart into points"


def point_tokens_are_repeatable(kind: type[PointTokenizer]) -> None:
    """In eval mode trajectories have the same tokens every time, both ways."""
    tokenizer, paths = _point_tokenizer(kind)
    for way in (tokenizer.at_once, lambda x: _onward(tokenizer, x)):
        _same_tokens(way(paths), way(paths), "the tokens change from call to call")


def points_come_back(kind: type[PointTokenizer]) -> None:
    """Numbers made of a point by its anchor and unit, in float32, give it back to half a metre and a millisecond."""
    tokenizer, paths = _point_tokenizer(kind)
    there = torch.arange(paths.time.shape[1]) < paths.lengths[:, None]
    for tokens in (tokenizer.at_once(paths), _onward(tokenizer, paths)):
        place = ((paths.place - tokens.place) / tokens.metres[..., None]).float()
        time = ((paths.time - tokens.time) / tokens.seconds).asinh().float().double().sinh()
        off = (tokens.place + tokens.metres[..., None] * place - paths.place).norm(dim=-1)[there].max().item()
        late = (tokens.time + tokens.seconds * time - paths.time).abs()[there].max().item()
        assert off < 0.5, f"a place comes back {off:.2g} m away"
        assert late < 1e-3, f"a moment comes back {late:.2g} s away"


def hidden_points_change_nothing(kind: type[PointTokenizer]) -> None:
    """What is hidden is not looked at: other places, moments or NaN there make the same tokens."""
    tokenizer, paths = _point_tokenizer(kind)
    place = paths.place.masked_fill(paths.hidden_place[..., None], float("nan"))
    time = paths.time.masked_fill(paths.hidden_time, float("nan"))
    other = Paths(place, time, paths.start, paths.hidden_place, paths.hidden_time, paths.lengths)
    _same_tokens(tokenizer.at_once(paths), tokenizer.at_once(other), "tokens look at what is hidden")


def points_do_not_see_ahead(kind: type[PointTokenizer]) -> None:
    """Step by step a token looks at no point of its own patch or after it, but for shown moments of its own."""
    tokenizer, paths = _point_tokenizer(kind)
    before = _onward(tokenizer, paths)
    p, n = tokenizer.patch, paths.time.shape[1]
    for token in range(1, n // p):
        place, time = paths.place.clone(), paths.time.clone()
        place[:, token * p :] = float("nan")
        hidden = paths.hidden_time.clone()
        time[:, token * p :][hidden[:, token * p :]] = float("nan")
        time[:, (token + 1) * p :] = float("nan")
        other = Paths(place, time, paths.start, paths.hidden_place, hidden, paths.lengths)
        after = tokenizer.onward(other, 0, token + 1, {})
        _same_tokens(before, after, f"token {token} looks ahead", token + 1, p)


def onward_is_onward(kind: type[PointTokenizer]) -> None:
    """Some tokens first and then the others are all of them together."""
    tokenizer, paths = _point_tokenizer(kind)
    whole, tokens = _onward(tokenizer, paths), paths.time.shape[1] // tokenizer.patch
    state: State = {}
    cuts = [0, tokens // 2, tokens // 2 + 1, tokens]
    parts = [tokenizer.onward(paths, a, b, state) for a, b in pairwise(cuts) if a < b]
    together = PointTokens(
        torch.cat([t.inputs for t in parts], 1),
        whole.rows,
        *(torch.cat([getattr(t, name) for t in parts], 1) for name in ("place", "time", "metres", "seconds")),
    )
    _same_tokens(whole, together, "tokens that come later differ")


def steps_are_those_of_a_whole_pass(kind: type[PointTokenizer]) -> None:
    """Put together with a backbone, it tells the same with a cache as in whole passes over what it has told so far."""
    tokenizer, paths = _point_tokenizer(kind)
    model = Completer(tokenizer, seeded(lambda: Transformer(WIDTH, depth=1))).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    p, n = tokenizer.patch, paths.time.shape[1]
    known = n // 2 // p * p
    shown = torch.zeros_like(paths.hidden_time)
    whole = replace(paths, place=paths.place.clone(), hidden_time=shown, lengths=torch.full_like(paths.lengths, n))
    place, _ = model.step_by_step(whole, known)
    for first in range(known, n, p):
        whole.place[:, first : first + p] = model.next_points(whole)[0][:, first : first + p]
    worst = (place - whole.place).abs().max().item()
    assert worst < 0.1, f"with a cache it tells a place {worst:.2g} m from the one it tells without"


def paths_are_apart(kind: type[PointTokenizer]) -> None:
    """A trajectory alone gets the tokens it gets among others, whatever stands after its points."""
    tokenizer, paths = _point_tokenizer(kind)
    p = tokenizer.patch
    for i, length in enumerate(paths.lengths.tolist()):
        one = {f.name: getattr(paths, f.name)[i : i + 1].clone() for f in fields(Paths)}
        for name in ("place", "time"):
            one[name][:, length:] = 1e6
        for name in ("hidden_place", "hidden_time"):
            one[name][:, length:] ^= True
        alone = _first(Paths(**one), -(-length // p) * p)
        for way in (tokenizer.at_once, lambda x: _onward(tokenizer, x)):
            a, b = way(alone), way(paths)
            n = a.inputs.shape[1]
            same(a.inputs, b.inputs[i : i + 1, :n], "trajectories or their padding mix")
            for name in ("place", "time", "metres", "seconds"):
                mine, among = getattr(a, name)[:, :length], getattr(b, name)[i : i + 1, :length]
                same(mine, among, f"trajectories or their padding mix: {name}")


def walks_are_the_same_elsewhere(kind: type[PointTokenizer]) -> None:
    """The same walk in another country, a quarter round the earth, makes the same tokens."""
    tokenizer, paths = _point_tokenizer(kind)
    metres = paths.place[0].numpy()
    when = (paths.time[0].numpy() * 1e6).astype(np.int64)
    made = []
    for origin in ((52.0, 13.0), (-10.5, 103.0)):
        lat, lon = from_local(metres, origin)
        walk = Trajectory("a", when, lat, lon)
        made.append(collate([walk], [nothing_hidden(len(walk))], "UTC", multiple=tokenizer.patch))
    for way in (tokenizer.at_once, lambda x: _onward(tokenizer, x)):
        _same_tokens(way(made[0]), way(made[1]), "tokens know where on the earth the walk is")


def point_heads_make_points(kind: type[PointTokenizer]) -> None:
    """The heads give two numbers a place and one a moment, with finite losses, and everything learns."""
    tokenizer, paths = _point_tokenizer(kind)
    tokens = tokenizer.train().at_once(paths)
    hidden = tokenizer.apart(tokens.inputs)
    total = torch.zeros(())
    known = tokenizer.knowing(hidden, torch.ones(*hidden.shape[:2], 2))
    for head, given, n in ((tokenizer.place_head, hidden, 2), (tokenizer.time_head, known, 1)):
        drawn = head.sample(given, given, generator=torch.Generator().manual_seed(0))
        assert drawn.shape == (*given.shape[:2], n), f"a head draws {tuple(drawn.shape)}"
        total = total + head.loss(given, given, torch.ones_like(drawn)).sum()
    assert total.isfinite(), "the loss is not finite"
    total.backward()
    all_learn(tokenizer)


def point_tokenizer_is_restored(kind: type[PointTokenizer]) -> None:
    """Saved and loaded, it answers the same: units are kept with the weights."""
    tokenizer, paths = _point_tokenizer(kind)
    torch.manual_seed(7)
    fresh: Any = kind(WIDTH).eval()
    fresh.load_state_dict(tokenizer.state_dict())
    _same_tokens(fresh.at_once(paths), tokenizer.at_once(paths), "loaded into a fresh copy, it makes other tokens")


LAWS: tuple[Law, ...] = (
    point_tokens_fit,
    point_tokens_are_repeatable,
    points_come_back,
    hidden_points_change_nothing,
    points_do_not_see_ahead,
    onward_is_onward,
    steps_are_those_of_a_whole_pass,
    paths_are_apart,
    walks_are_the_same_elsewhere,
    point_heads_make_points,
    point_tokenizer_is_restored,
    options_have_defaults,
)
