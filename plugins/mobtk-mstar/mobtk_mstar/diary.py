"""A week as a diary, coarse to fine, and the places it speaks of, one after the other."""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.backbones.transformer import Transformer
from mobtk.contracts import Head, SpatialMapper, State, Tokenizer
from mobtk.errors import BadInput
from mobtk.mappers.embedding import coordinates
from mobtk.models.traits import place_features
from mobtk.schedule import Schedule
from mobtk.tokenizers.codebook import Codebook
from mobtk.tokenizers.heads import CategoricalHead, draw
from mobtk.tokenizers.rvq import codebook_use, cubic, default_lengths, pooling
from mobtk_mstar.tokenizer import Phi

GIVEN = 6
"""Channels of the inputs that the head reads: a place is asked for, it is used, the first place, the one before."""


@final
class DiaryTokenizer(Tokenizer):
    """M-STAR's scales (Luo et al. 2025, https://arxiv.org/abs/2512.07314) over *which* place, and then *where* it is.

    A diary says for each step the rank of the place one is at, among one's own places by the time spent there: the
    abstract locations of DITRAS (Pappalardo & Simini 2018, https://doi.org/10.1007/s10618-017-0548-4). The diary is
    decided scale by scale as in M-STAR; then come the places themselves, one token each, most visited first.

    What this changes against M-STAR:

    * a code need not know the map: one code can say "at work from nine to six" of everybody, so that a day is decided by
      one draw and not by 24 that cannot agree;
    * every scale is decoded on its own in training, so that coarse codes carry all that they can;
    * a token speaks only where what is said so far decodes to a wrong step in its time, and else is the code of silence:
      most of the fine tokens, so that they are easy to foretell;
    * codes are added at full resolution, as in VAR (Tian et al. 2024, https://arxiv.org/abs/2404.02905).

    Args:
        lengths: tokens of each scale of the diary, coarse to fine; M-STAR's in proportion by default.
        places: places a sequence can have; steps at rarer ones count as the nearest of these.
        codes: ``V``, one codebook for all scales; silence is one more.
        code_width: length of a code, and width of the diary's encoder and decoder.
        depth, heads: of encoder and decoder.
        commitment: weight of the encoder's loss for straying from its codes.
        decay, revive: of the codebook (:class:`~mobtk.tokenizers.codebook.Codebook`).
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
        code_width: int = 64,
        depth: int = 1,
        heads: int = 2,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.05,
        bases: int = 12,
    ) -> None:
        super().__init__()
        lengths = tuple(lengths or default_lengths(steps))
        if min(lengths) < 1 or max(lengths) > steps:
            raise BadInput(f"diary: lengths={list(lengths)} must lie in 1..{steps}, the steps of a sequence")
        if places < 1 or codes < 1 or bases < 2:
            raise BadInput(f"diary: places and codes are at least 1 and bases 2, not {places}, {codes}, {bases}")
        learned = width - GIVEN
        if learned < 1:
            raise BadInput(f"diary: a width of {width} is too small; take {GIVEN + 1} or more")
        self.places, self.given = places, GIVEN
        scales = Schedule.coarse_to_fine(lengths, steps)
        self.diary_tokens, self.diary_groups = scales.n_tokens, scales.n_groups
        self.schedule = Schedule((*lengths, *[1] * places), (*scales.times, *[(steps - 1) / 2] * places))
        self.register_buffer("scale_of", scales.group_of(), persistent=False)
        self.register_buffer("where", place_features(mapper), persistent=False)
        self.register_buffer("xy", coordinates(mapper, 0), persistent=False)
        books = [Codebook(codes, code_width, decay=decay, revive=revive, rate=0.0) for _ in lengths]
        self.codec = DiaryCodec(steps, lengths, places, books, depth, heads, commitment)
        self.read = nn.Linear(code_width, learned)
        self.scale = nn.Parameter(torch.randn(len(lengths), learned) * 0.3)
        self.when = nn.Parameter(torch.randn(self.diary_tokens, learned) * 0.3)
        self.rank = nn.Parameter(torch.randn(places, learned) * 0.3)
        self.times = nn.Linear(steps, learned, bias=False)
        self.places_so_far = nn.Linear(2 * self.where.shape[1], learned, bias=False)
        self.head = DiaryHead(width, codes, self.where, self.xy, bases)

    def encode(self, sequences: Int[Tensor, "B T"]) -> Int[Tensor, "B L"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        ranks, places, known = self._ranked(sequences.long())
        codes = torch.cat(self.codec.quantise(ranks)[0], dim=1)
        used = self._used(self.codec.ranks(codes))
        # a place that only the decoded diary speaks of is taken for the first one
        places = torch.where(known, places, places[:, :1])
        return torch.cat([codes, places * used], dim=1)

    def decode(self, tokens: Int[Tensor, "B L"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        codes, places = self._apart(tokens)
        return places.gather(1, self.codec.ranks(codes))

    def inputs(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The diary so far, averaged to the tokens of each scale; of a place, its hours and the places before it."""
        codes, places = self._apart(tokens)
        running = self.codec.replay(codes)
        here = torch.cat([self.codec.shrink(k, f) for k, f in enumerate(running[:-1])], dim=1)
        diary = self._diary_input(here, slice(0, self.diary_tokens))
        ranks = self.codec.places(running[-1]).argmax(-1)
        return torch.cat([diary, self._place_input(ranks, places, slice(0, self.places))], dim=1)

    def next_inputs(self, tokens: Int[Tensor, "B l"], k: int, state: State) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        if k == 0:
            state["running"] = self.codec.silence(len(tokens))
        elif k <= self.diary_groups:
            state["running"] = self.codec.add(k - 1, state["running"], tokens[:, self.schedule.group(k - 1)])
        if k < self.diary_groups:
            return self._diary_input(self.codec.shrink(k, state["running"]), self.schedule.group(k))
        if k == self.diary_groups:
            state["ranks"] = self.codec.places(state["running"]).argmax(-1)
        i = k - self.diary_groups
        return self._place_input(state["ranks"], tokens[:, self.diary_tokens :], slice(i, i + 1))

    def loss(self, sequences: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Cross-entropy of the ranks decoded after each scale, and commitment."""
        ranks, _, _ = self._ranked(sequences.long())
        _, logits, commit = self.codec.quantise(ranks)
        each = torch.stack([F.cross_entropy(one.flatten(0, 1), ranks.flatten()) for one in logits])
        return {"steps": each[-1], "scales": each[:-1].mean(), "commit": commit}

    @torch.no_grad()
    def health(self, sequences: Int[Tensor, "B T"]) -> dict[str, float]:
        """Share of steps decoded right, codes in use, their perplexity, and the share of tokens that speak, by scale."""
        tokens = torch.cat([self.encode(part) for part in sequences.split(128)])
        decoded = torch.cat([self.decode(part) for part in tokens.split(128)])
        report = {"accuracy": (decoded == sequences).float().mean().item()}
        codes, _ = self._apart(tokens)
        silence = self.codec.silent
        report |= {f"codes_{k}": v for k, v in codebook_use(codes, silence + 1).items()}
        for k, part in enumerate(codes.split(self.codec.lengths, dim=1)):
            use = codebook_use(part, silence + 1)
            report |= {f"used_scale_{k}": use["used"], f"perplexity_scale_{k}": use["perplexity"]}
            report[f"speaks_scale_{k}"] = (part != silence).float().mean().item()
        return report

    def _apart(self, tokens: Int[Tensor, "B L"]) -> tuple[Int[Tensor, "B l"], Int[Tensor, "B A"]]:
        return tokens[:, : self.diary_tokens], tokens[:, self.diary_tokens :]

    def _used(self, ranks: Int[Tensor, "B T"]) -> Bool[Tensor, "B A"]:
        return (ranks[:, None] == torch.arange(self.places, device=ranks.device)[:, None]).any(-1)

    def _ranked(self, cells: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B A"], Bool[Tensor, "B A"]]:
        """The rank of the place at each step, by time spent and then by first visit; the places, and which there are."""
        steps = cells.shape[1]
        same = cells[:, :, None] == cells[:, None]
        first = same.byte().argmax(-1)
        key = same.sum(-1) * steps - first
        begins = first == torch.arange(steps, device=cells.device)
        rank = ((key[:, None] > key[:, :, None]) & begins[:, None]).sum(-1)
        most = max(self.places, int(rank.max()) + 1)
        places = cells.new_zeros(len(cells), most).scatter_(1, rank, cells)
        known = torch.zeros(len(cells), most, dtype=torch.bool, device=cells.device).scatter_(1, rank, True)
        if most > self.places:
            kept, places, known = rank < self.places, places[:, : self.places], known[:, : self.places]
            away = torch.cdist(self.xy[cells], self.xy[places]).masked_fill(~known[:, None], torch.inf)
            rank = torch.where(kept, rank, away.argmin(-1))
        return rank, places, known

    def _diary_input(self, here: Float[Tensor, "B n d"], tokens: slice) -> Float[Tensor, "B n D"]:
        learned = self.read(here) + self.scale[self.scale_of[tokens]] + self.when[tokens]
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
    """Encoder, codebook and decoder of diaries: what the tokenizer's own training learns."""

    def __init__(
        self,
        steps: int,
        lengths: Sequence[int],
        places: int,
        books: Sequence[Codebook],
        depth: int,
        heads: int,
        commitment: float,
    ) -> None:
        super().__init__()
        self.silent, width = books[0].table.shape
        self.lengths, self.commitment = tuple(lengths), commitment
        self.codebooks = nn.ModuleList(books)
        self.embed = nn.Embedding(places, width)
        self.when = nn.Parameter(torch.randn(steps, width) * 0.02)
        self.begin = nn.Parameter(torch.zeros(width))
        self.whole = Schedule.coarse_to_fine([steps], steps)
        self.encoder = Transformer(width, depth=depth, heads=heads, adaptive=False)
        self.decoder = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.GELU(), nn.Linear(width, places)
        )
        self.phi = nn.ModuleList(Phi(width) for _ in lengths)
        for k, n in enumerate(lengths):
            self.register_buffer(f"down_{k}", pooling(steps, n), persistent=False)
            self.register_buffer(f"up_{k}", cubic(n, steps), persistent=False)

    def quantise(
        self, ranks: Int[Tensor, "B T"]
    ) -> tuple[list[Int[Tensor, "B _"]], list[Float[Tensor, "B T A"]], Float[Tensor, ""]]:
        """Codes of all scales; logits over ranks before the first and after each scale; the commitment loss."""
        feature = self.encoder(self.embed(ranks) + self.when, self.whole)
        running = self.silence(len(ranks))
        logits = [self.places(running)]
        codes, commit = [], []
        for k in range(len(self.lengths)):
            down: Tensor = getattr(self, f"down_{k}")
            wrong = (logits[-1].argmax(-1) != ranks).float()
            speaks = (wrong @ (down > 0).float().T) > 0
            residual = self.shrink(k, feature - running).float()
            book = self.codebooks[k]
            code = book.nearest(residual.detach())
            chosen = book.lookup(code)
            commit.append((residual - chosen.detach()).square().mean(-1)[speaks])
            said = (residual + (chosen - residual).detach()) * speaks[..., None]
            running = self.refine(k, running, said)
            logits.append(self.places(running))
            codes.append(torch.where(speaks, code, self.silent))
            if self.training:
                book.update(residual.detach(), codes[-1])
        strays = torch.cat(commit)
        return codes, logits, self.commitment * (strays.sum() / max(1, len(strays)))

    def silence(self, batch: int) -> Float[Tensor, "B T d"]:
        """The diary before anything is said."""
        return self.begin.expand(batch, len(self.when), -1)

    def shrink(self, k: int, feature: Float[Tensor, "B T d"]) -> Float[Tensor, "B n d"]:
        """Average over the time of each token of scale ``k``."""
        down: Tensor = getattr(self, f"down_{k}")
        return down.to(feature.dtype) @ feature

    def refine(self, k: int, running: Float[Tensor, "B T d"], said: Float[Tensor, "B n d"]) -> Float[Tensor, "B T d"]:
        """The diary with what scale ``k`` says."""
        up: Tensor = getattr(self, f"up_{k}")
        return running + self.phi[k](up.to(said.dtype) @ said)

    def add(self, k: int, running: Float[Tensor, "B T d"], codes: Int[Tensor, "B n"]) -> Float[Tensor, "B T d"]:
        """The same, from the ids of the codes."""
        speaks = codes < self.silent
        said = self.codebooks[k].lookup(codes.clamp(max=self.silent - 1)) * speaks[..., None]
        return self.refine(k, running, said)

    def replay(self, codes: Int[Tensor, "B l"]) -> list[Float[Tensor, "B T d"]]:
        """The diary before the first scale, and after each."""
        running = [self.silence(len(codes))]
        for k, of_scale in enumerate(codes.split(self.lengths, dim=1)):
            running.append(self.add(k, running[-1], of_scale))
        return running

    def places(self, running: Float[Tensor, "B T d"]) -> Float[Tensor, "B T A"]:
        """Logits over ranks at each step."""
        return self.decoder(running + self.when).float()

    def ranks(self, codes: Int[Tensor, "B l"]) -> Int[Tensor, "B T"]:
        """The decoded diary."""
        return self.places(self.replay(codes)[-1]).argmax(-1)


@final
class DiaryHead(Head):
    """A softmax over codes for tokens of the diary, and for a place one over all cells of the map.

    A cell is likely for what it is (a bias a cell), for where it lies on the map (a linear map of its features) and for
    how far it is from the first place and from the one before: radial functions of the logarithm of the distance, as in
    gravity models, whose weights the backbone chooses. A place that the diary does not speak of is cell 0, for sure.
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
        self.decay = nn.Linear(width, 2 * (bases + 1))
        far = torch.tensor(1 + 4 / self.unit).log().item()
        self.register_buffer("centres", torch.linspace(0, far, bases), persistent=False)
        self.spread = far / (bases - 1)
        for module in (self.direction, self.decay):
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
            logits = self.liked + self.direction(hidden) @ self.where.T
            for weights, at in zip(self.decay(hidden).chunk(2, dim=-1), given.split(2, dim=-1), strict=True):
                away = torch.cdist(at, self.xy) / self.unit
                near = (-0.5 * ((away.log1p()[..., None] - self.centres) / self.spread).square()).exp()
                logits = logits + (near @ weights[:, :-1, None])[..., 0] + weights[:, -1:] * (away < 0.1)
        return logits
