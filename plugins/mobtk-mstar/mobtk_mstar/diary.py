"""A week as a diary, coarse to fine, and the places it speaks of, one after the other."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import Head, SpatialMapper, State, Tokenizer
from mobtk.errors import BadInput
from mobtk.mappers.embedding import coordinates
from mobtk.models.traits import place_features
from mobtk.schedule import Schedule
from mobtk.tokenizers.codebook import Codebook
from mobtk.tokenizers.heads import CategoricalHead, draw
from mobtk.tokenizers.rvq import codebook_use

GIVEN = 6
"""Channels of the inputs that the head reads: a place is asked for, it is used, the first place, the one before."""


OF_WEEK = (1, 7, 28, 168)
"""A week, days, quarters of days and hours."""


def dividing_lengths(steps: int, of_week: Sequence[int] = OF_WEEK) -> tuple[int, ...]:
    """Lengths of scales in proportion to those for a week of hours, in divisors of the steps."""
    divisors = [n for n in range(1, steps + 1) if steps % n == 0]
    return tuple(sorted({min(divisors, key=lambda d: abs(d - n * steps / 168)) for n in of_week}))


def in_order(places: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The rank of the place at each step, among the places of its sequence by time spent there and then by first visit."""
    steps = places.shape[1]
    same = places[:, :, None] == places[:, None]
    first = same.byte().argmax(-1)
    key = same.sum(-1) * steps - first
    begins = first == torch.arange(steps, device=places.device)
    return ((key[:, None] > key[:, :, None]) & begins[:, None]).sum(-1)


@final
class DiaryTokenizer(Tokenizer):
    """Scales as in M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314) over *which* place, and then *where* it is.

    A diary says for each step the rank of the place one is at, among one's own places by the time spent there: the
    abstract locations of DITRAS (Pappalardo & Simini 2018, https://doi.org/10.1007/s10618-017-0548-4). The diary is
    decided scale by scale; then come the places themselves, one token each, most visited first.

    What this changes against M-STAR:

    * a code need not know the map: one code says "at work from nine to six" of everybody, so that a day is decided by one
      draw and not by 24 that cannot agree;
    * a code is a whole pattern of its window, the mean of those it stands for, and takes the place of what was said before
      rather than being added to it; encoder, decoder and refinement fall away, and the last scale is exact;
    * a token speaks only where what was said so far is wrong in its window, and else is the code of silence: most of the
      fine tokens, so that they are easy to foretell.

    Args:
        lengths: tokens of each scale of the diary, coarse to fine, all divisors of the steps, the last one all of them; for
            a week 1, 7, 28 and 168 by default.
        places: places a sequence can have; steps at rarer ones count as the nearest of these.
        codes: ``V``, patterns of each scale; silence is one more.
        decay, revive: of the codebooks (:class:`~mobtk.tokenizers.codebook.Codebook`).
        bases: radial functions of the distance to the first place and to the one before, by which a place is chosen.
    """

    learns: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    needs_levels: ClassVar[bool] = False

    codec: "DiaryCodec"
    head: "DiaryHead"

    def __init__(
        self,
        mapper: SpatialMapper,
        steps: int,
        width: int,
        *,
        lengths: Sequence[int] | None = None,
        places: int = 12,
        codes: int = 1024,
        decay: float = 0.99,
        revive: float = 0.02,
        bases: int = 12,
    ) -> None:
        super().__init__()
        lengths = tuple(lengths or dividing_lengths(steps))
        grow = all(a < b for a, b in pairwise(lengths))
        if min(lengths) < 1 or any(steps % n for n in lengths) or lengths[-1] != steps or not grow:
            raise BadInput(
                f"diary: lengths={list(lengths)} must grow, divide {steps}, the steps of a sequence, and end with it; try "
                f"{list(dividing_lengths(steps))}"
            )
        if places < 1 or codes < places or bases < 2:
            raise BadInput(
                f"diary: places are at least 1, codes at least as many and bases 2, not {places}, {codes}, {bases}"
            )
        learned = width - GIVEN
        if learned < 1:
            raise BadInput(f"diary: a width of {width} is too small; take {GIVEN + 1} or more")
        self.places, self.given = places, GIVEN
        scales = Schedule.coarse_to_fine(lengths, steps)
        self.diary_tokens, self.diary_groups = scales.n_tokens, scales.n_groups
        self.told = frozenset({0, *range(scales.n_groups, scales.n_groups + places)})
        self.schedule = Schedule((*lengths, *[1] * places), (*scales.times, *[(steps - 1) / 2] * places))
        self.register_buffer("where", place_features(mapper), persistent=False)
        self.register_buffer("xy", coordinates(mapper, 0), persistent=False)
        self.codec = DiaryCodec(steps, lengths, places, codes, decay, revive)
        self.read = nn.ModuleList(nn.Linear(steps // n * places, learned) for n in lengths)
        self.when = nn.Parameter(torch.randn(self.diary_tokens, learned) * 0.3)
        self.rank = nn.Parameter(torch.randn(places, learned) * 0.3)
        self.times = nn.Linear(steps, learned, bias=False)
        self.places_so_far = nn.Linear(2 * self.where.shape[1], learned, bias=False)
        self.head = DiaryHead(width, codes, self.where, self.xy, bases)

    def encode(self, sequences: Int[Tensor, "B T"]) -> Int[Tensor, "B L"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        ranks, places, known = self._ranked(sequences.long())
        codes = torch.cat(self.codec.quantise(ranks)[0], dim=1)
        return torch.cat([codes, places * known], dim=1)

    def decode(self, tokens: Int[Tensor, "B L"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        codes, places = self._apart(tokens)
        return places.gather(1, in_order(self.codec.replay(codes)[-1]))

    def inputs(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """What was said so far of each window; of a place, its hours and the places before it."""
        codes, places = self._apart(tokens)
        *said, ranks = self.codec.replay(codes)
        diary = torch.cat([self._diary_input(k, one) for k, one in enumerate(said)], dim=1)
        return torch.cat([diary, self._place_input(in_order(ranks), places, slice(0, self.places))], dim=1)

    def next_inputs(self, tokens: Int[Tensor, "B l"], k: int, state: State) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        if k == 0:
            state["said"] = self.codec.silence(len(tokens))
        elif k <= self.diary_groups:
            state["said"] = self.codec.say(k - 1, state["said"], tokens[:, self.schedule.group(k - 1)])
        if k < self.diary_groups:
            return self._diary_input(k, state["said"])
        if k == self.diary_groups:
            state["said"] = in_order(state["said"])
        i = k - self.diary_groups
        return self._place_input(state["said"], tokens[:, self.diary_tokens :], slice(i, i + 1))

    def loss(self, sequences: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Share of steps that are wrong before the last scale; the patterns move on the way, and nothing has a gradient."""
        ranks, _, _ = self._ranked(sequences.long())
        _, said = self.codec.quantise(ranks)
        return {"wrong": (said[-2] != ranks).float().mean()}

    @torch.no_grad()
    def health(self, sequences: Int[Tensor, "B T"]) -> dict[str, float]:
        """Share of steps decoded right; codes in use and their perplexity; the share of tokens that speak; by scale."""
        tokens = torch.cat([self.encode(part) for part in sequences.split(512)])
        decoded = torch.cat([self.decode(part) for part in tokens.split(512)])
        report = {"accuracy": (decoded == sequences).float().mean().item()}
        codes, _ = self._apart(tokens)
        report |= self._use("codes_{}", codes)
        for k, part in enumerate(codes.split(self.codec.lengths, dim=1)):
            report |= self._use("{}_scale_" + str(k), part)
            report[f"speaks_scale_{k}"] = (part < self.codec.silent).float().mean().item()
        return report

    def _use(self, name: str, codes: Int[Tensor, "B l"]) -> dict[str, float]:
        """How many codes are in use among the tokens that speak, and their perplexity."""
        spoken = codes[codes < self.codec.silent]
        use = codebook_use(spoken[None], self.codec.silent) if len(spoken) else {"used": 0.0, "perplexity": 1.0}
        return {name.format(k): v for k, v in use.items()}

    def _apart(self, tokens: Int[Tensor, "B L"]) -> tuple[Int[Tensor, "B l"], Int[Tensor, "B A"]]:
        return tokens[:, : self.diary_tokens], tokens[:, self.diary_tokens :]

    def _ranked(self, cells: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B A"], Bool[Tensor, "B A"]]:
        """The rank of the place at each step, by time spent and then by first visit; the places, and which there are."""
        rank = in_order(cells)
        most = max(self.places, int(rank.max()) + 1)
        places = cells.new_zeros(len(cells), most).scatter_(1, rank, cells)
        known = torch.zeros(len(cells), most, dtype=torch.bool, device=cells.device).scatter_(1, rank, True)
        if most > self.places:
            kept, places, known = rank < self.places, places[:, : self.places], known[:, : self.places]
            away = torch.cdist(self.xy[cells], self.xy[places]).masked_fill(~known[:, None], torch.inf)
            return self._ranked(places.gather(1, torch.where(kept, rank, away.argmin(-1))))
        return rank, places, known

    def _diary_input(self, k: int, said: Int[Tensor, "B T"]) -> Float[Tensor, "B n D"]:
        learned = self.read[k](self.codec.windows(k, said).flatten(2)) + self.when[self.schedule.group(k)]
        return F.pad(learned, (GIVEN, 0))

    def _place_input(self, ranks: Int[Tensor, "B T"], places: Int[Tensor, "B a"], which: slice) -> Float[Tensor, "B n D"]:
        """Of the places asked for: when one is there, and where the first place and the one before it are."""
        index = torch.arange(self.places, device=ranks.device)[which]
        hours = (ranks[:, None] == index[:, None]).float()
        used = hours.amax(-1, keepdim=True)
        if places.shape[1]:
            told = (index > 0).float()[:, None]
            before = places[:, (index - 1).clamp(min=0)]
            first = places[:, :1].expand_as(before)
            at = torch.cat([self.xy[first], self.xy[before]], dim=-1) * told
            so_far = torch.cat([self.where[first], self.where[before]], dim=-1) * told
        else:
            at = hours.new_zeros(*hours.shape[:2], 4)
            so_far = hours.new_zeros(*hours.shape[:2], self.places_so_far.in_features)
        learned = self.times(hours) + self.rank[which] + self.places_so_far(so_far)
        return torch.cat([torch.ones_like(used), used, at, learned], dim=-1)


@final
class DiaryCodec(nn.Module):
    """Patterns of each scale, learned as moving averages of the windows they stand for; the last scale has ranks."""

    start: Tensor

    def __init__(self, steps: int, lengths: Sequence[int], places: int, codes: int, decay: float, revive: float) -> None:
        super().__init__()
        self.lengths, self.places, self.silent = tuple(lengths), places, codes
        self.books = nn.ModuleList(
            Codebook(codes, steps // n * places, decay=decay, revive=revive, rate=0.0) for n in lengths[:-1]
        )
        self.register_buffer("start", torch.zeros(steps, dtype=torch.long), persistent=False)

    def quantise(self, ranks: Int[Tensor, "B T"]) -> tuple[list[Int[Tensor, "B _"]], list[Int[Tensor, "B T"]]]:
        """Codes of all scales; the diary before the first and after each scale."""
        said, codes = [self.silence(len(ranks))], []
        for k, n in enumerate(self.lengths):
            wanted, before = ranks.unflatten(1, (n, -1)), said[-1].unflatten(1, (n, -1))
            wrong = (wanted != before).sum(-1)
            if k == len(self.lengths) - 1:
                code = torch.where(wrong > 0, ranks, self.silent)
            else:
                book, windows = self.books[k], self.windows(k, ranks).flatten(2)
                code = book.nearest(windows)
                if self.training:
                    book.update(windows, torch.where(wrong > 0, code, self.silent))
                better = (wanted != self.patterns(k, code)).sum(-1) < wrong
                code = torch.where(better, code, self.silent)
            codes.append(code)
            said.append(self.say(k, said[-1], code))
        return codes, said

    def silence(self, batch: int) -> Int[Tensor, "B T"]:
        """The diary before anything is said: always at the first place."""
        return self.start.expand(batch, -1)

    def windows(self, k: int, ranks: Int[Tensor, "B T"]) -> Float[Tensor, "B n w A"]:
        """The windows of scale ``k``, a one for each rank."""
        return F.one_hot(ranks, self.places).float().unflatten(1, (self.lengths[k], -1))

    def patterns(self, k: int, codes: Int[Tensor, "B n"]) -> Int[Tensor, "B n w"]:
        """The likeliest rank at each step of codes of scale ``k``."""
        return self.books[k].lookup(codes).unflatten(-1, (-1, self.places)).argmax(-1)

    def say(self, k: int, said: Int[Tensor, "B T"], codes: Int[Tensor, "B n"]) -> Int[Tensor, "B T"]:
        """The diary with what scale ``k`` says."""
        last = k == len(self.lengths) - 1
        known = self.places if last else self.silent  # what is drawn beyond the ranks says nothing
        speaks, codes = (codes < known)[..., None], codes.clamp(max=known - 1)
        told = codes[..., None] if last else self.patterns(k, codes)
        return torch.where(speaks, told, said.unflatten(1, (self.lengths[k], -1))).flatten(1)

    def replay(self, codes: Int[Tensor, "B l"]) -> list[Int[Tensor, "B T"]]:
        """The diary before the first scale, and after each."""
        said = [self.silence(len(codes))]
        for k, of_scale in enumerate(codes.split(self.lengths, dim=1)):
            said.append(self.say(k, said[-1], of_scale))
        return said


@final
class DiaryHead(Head):
    """A softmax over codes for tokens of the diary, and for a place one over all cells of the map.

    A cell is likely for what it is (a bias a cell); for where it lies on the map (a linear map of its features); for how
    near it is to where the backbone aims, the more the surer that is (the home that was asked for); and for how far it is
    from the first place and from the one before: radial functions of the logarithm of the distance, as in gravity models,
    whose weights the backbone chooses. A place that the diary does not speak of is cell 0, for sure.
    """

    def __init__(
        self, width: int, codes: int, where: Float[Tensor, "cells f"], xy: Float[Tensor, "cells 2"], bases: int
    ) -> None:
        super().__init__()
        self.register_buffer("where", where, persistent=False)
        self.register_buffer("xy", xy, persistent=False)
        self.unit = (12 / len(xy)) ** 0.5  # about how far apart neighbouring cells lie
        self.codes = CategoricalHead(width, codes + 1)
        self.liked = nn.Parameter(torch.zeros(len(xy)))
        self.direction = nn.Linear(width, where.shape[1])
        self.aim = nn.Linear(width, 3)
        self.decay = nn.Linear(width, 2 * (bases + 1))
        far = torch.tensor(1 + 4 / self.unit).log().item()
        self.register_buffer("centres", torch.linspace(0, far, bases), persistent=False)
        self.spread = far / (bases - 1)
        for module in (self.direction, self.decay, self.aim):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def loss(
        self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"], tokens: Int[Tensor, "B n"]
    ) -> Float[Tensor, "B n"]:
        """See :class:`~mobtk.contracts.Head`."""
        place, used = self._kinds(inputs)
        losses = hidden.new_zeros(tokens.shape, dtype=torch.float32)
        logits = self.codes.logits(hidden[:, ~place], inputs[:, ~place])
        losses[:, ~place] = F.cross_entropy(logits.flatten(0, 1), tokens[:, ~place].flatten(), reduction="none").unflatten(
            0, logits.shape[:2]
        )
        if used.any():
            losses[used] = F.cross_entropy(self._cells(hidden[used], inputs[used]), tokens[used], reduction="none")
        return losses

    def sample(
        self,
        hidden: Float[Tensor, "B n D"],
        inputs: Float[Tensor, "B n D"],
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        share: Int[Tensor, "n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "B n"]:
        """See :class:`~mobtk.contracts.Head`."""
        place, used = self._kinds(inputs)
        tokens = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        if not place.all():
            logits = self.codes.logits(hidden[:, ~place], inputs[:, ~place])
            together = None if share is None else share[~place]
            tokens[:, ~place] = draw(logits, temperature, top_k, top_p, min_p, together, generator)
        if used.any():
            logits = self._cells(hidden[used], inputs[used])[:, None]
            tokens[used] = draw(logits, temperature, top_k, top_p, min_p, None, generator)[:, 0]
        return tokens

    def _kinds(self, inputs: Float[Tensor, "B n D"]) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "B n"]]:
        """Which tokens are places, and which of those the diary speaks of."""
        place = inputs[0, :, 0] > 0.5
        return place, place & (inputs[..., 1] > 0.5)

    def _cells(self, hidden: Float[Tensor, "m D"], inputs: Float[Tensor, "m D"]) -> Float[Tensor, "m cells"]:
        """Logits over cells."""
        with torch.autocast(hidden.device.type, enabled=False):
            hidden, given = hidden.float(), inputs[:, 2:GIVEN].float()
            north_east, sure = self.aim(hidden).split([2, 1], dim=-1)
            nearness = north_east @ self.xy.T - 0.5 * self.xy.square().sum(-1)
            logits = self.liked + self.direction(hidden) @ self.where.T + sure.exp() * nearness
            for weights, at in zip(self.decay(hidden).chunk(2, dim=-1), given.split(2, dim=-1), strict=True):
                away = torch.cdist(at, self.xy) / self.unit
                near = (-0.5 * ((away.log1p()[..., None] - self.centres) / self.spread).square()).exp()
                logits = logits + (near @ weights[:, :-1, None])[..., 0] + weights[:, -1:] * (away < 0.1)
        return logits
