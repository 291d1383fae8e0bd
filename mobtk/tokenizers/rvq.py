"""Multi-scale residual quantisation: a week as a few coarse codes, then finer and finer corrections."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.backbones.transformer import Transformer
from mobtk.contracts import SpatialMapper, State, Tokenizer
from mobtk.errors import BadInput
from mobtk.mappers.embedding import cell_embedding
from mobtk.schedule import Schedule
from mobtk.tokenizers.codebook import Codebook
from mobtk.tokenizers.heads import CategoricalHead, CodebookHead

REFERENCE_LENGTHS = (1, 7, 14, 28, 56, 84, 112, 168)
"""M-STAR's scales for a week of hours: 470 tokens in 8 passes."""


LARGEST = 2**25
"""Numbers in the logits of one piece of a decoding: 128 MiB."""


def default_lengths(steps: int) -> tuple[int, ...]:
    """M-STAR's scales in proportion to another number of steps; for 168 they are M-STAR's."""
    return tuple(sorted({max(1, round(n * steps / 168)) for n in REFERENCE_LENGTHS}))


def pooling(steps: int, tokens: int) -> Float[Tensor, "n T"]:
    """The matrix that averages steps over the time of each token; windows overlap where they do not divide."""
    return F.adaptive_avg_pool1d(torch.eye(steps)[None], tokens)[0].T.contiguous()


def cubic(tokens: int, steps: int) -> Float[Tensor, "T n"]:
    """The matrix that spreads tokens over steps by cubic interpolation."""
    eye = torch.eye(tokens)[None, None]
    return F.interpolate(eye, size=(steps, tokens), mode="bicubic", align_corners=False)[0, 0].contiguous()


def turns_of(tokens: int, turns: int, lag: int) -> tuple[Int[Tensor, "n"], Int[Tensor, "n p"]]:
    """In which turn each token of the last scale is decided, and which tokens decided before it it looks back to.

    These are the one before it in its window, the first of its window (of the window before, for the first itself), and
    the same one of the window before; -1 where there is none. Columns without any are left out.
    """
    i = torch.arange(tokens)
    first, before = i - i % turns, i - turns if lag else torch.full_like(i, -1)
    began, behind = torch.where(i > first, first, before), torch.where(i > first, i - 1, -1)
    past_of = torch.stack([behind, began, before], dim=1).clamp(min=-1)
    return i % turns + lag * (i // turns), past_of[:, (past_of >= 0).any(0)]


@final
class ResidualVQ(Tokenizer):
    """The tokenizer of M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314), with VAR's error feedback.

    Each scale ``k`` looks at the sequence on its own spatial level (coarse cells for the first, short scales) and
    quantises, averaged to ``n_k`` tokens, what the scales before have not said. A running feature ``F`` at full
    resolution starts at zero and gains ``phi_k(up(code))`` at every scale.

    Where it differs from M-STAR:

    * the residual is taken against the *quantised* running feature, as in VAR (Tian et al. 2024,
      https://arxiv.org/abs/2404.02905, algorithms 1 and 2), so that a scale sees and repairs the error of those
      before it, and scales are summed at full resolution;
    * cells begin as their coordinates rather than as random vectors, so that residuals are displacements, and a cell
      is decoded as the one nearest to the running feature. After 75 steps 99 % of the hours are decoded
      right, and 72 % with random vectors (docs/results/core.md);
    * codes are learned by moving averages, by Euclidean distance, and dead ones are revived; with a ``rate`` common
      codes are preferred, which makes tokens easier to foretell;
    * ``phi`` is the feature plus a convolution of it that begins at zero; encoder and decoder are pre-norm with
      rotary positions, begin switched off, and encode each distinct level once;
    * gradients pass straight through each scale to the spatial level it read.

    Args:
        lengths: tokens of each scale, coarse to fine, any numbers up to the number of steps; M-STAR's in proportion
            to the steps by default.
        codes: ``V``, one codebook for all scales.
        code_width: length of a code and the width of encoder and decoder.
        depth: blocks of the encoder, and of the decoder; 0 has neither.
        heads: attention heads of both.
        commitment: weight of the encoder's loss for straying from its codes.
        decay: of the codebook's moving averages.
        revive: uses per step under which a code is dead.
        rate: what a nat of a code's rareness costs, in squared distances between neighbouring cells (entropy-constrained
            quantisation, Chou et al. 1989, https://doi.org/10.1109/29.17498); 0 takes the nearest code.
        pool: what a token sees of its steps: their ``mean``, as in M-STAR, or their ``medoid``: the step nearest to all
            others, so where a person mostly is, which leaves nothing to correct in most of the finer tokens.
        up: how a token is spread over its steps: ``cubic``, as in M-STAR, or ``nearest``, because people stay.
        turns: in how many turns the last scale is decided: at once, as in M-STAR, or every ``turns``-th step together,
            each knowing where the step before was sent and where its window began. 24 takes the hours in turn and the
            days side by side. Tokens that are decided at once cannot agree; where the coarse scales leave much open,
            turns let them.
        lag: turns by which each window of ``turns`` steps begins after the one before it: with 24 turns and a lag of 2
            an hour knows what the days before did up to two hours later, and where it was at the same hour the day
            before. It costs ``lag`` more passes a window.
        head: ``places`` knows where the codes lie (:class:`~mobtk.tokenizers.heads.CodebookHead`) and wants a width
            of more than one to four codes; ``categorical`` is a plain softmax over the codes, as in M-STAR.
        dropout: of encoder and decoder, while they train.
    """

    learns: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    needs_levels: ClassVar[bool] = True

    codec: "Codec"

    def __init__(
        self,
        mapper: SpatialMapper,
        steps: int,
        width: int,
        *,
        lengths: Sequence[int] | None = None,
        codes: int = 1024,
        code_width: int = 4,
        depth: int = 1,
        heads: int = 2,
        commitment: float = 0.25,
        decay: float = 0.95,
        revive: float = 0.1,
        rate: float = 0.0,
        pool: str = "mean",
        up: str = "cubic",
        turns: int = 1,
        lag: int = 0,
        head: str = "places",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        lengths = tuple(lengths or default_lengths(steps))
        if pool not in ("mean", "medoid") or up not in ("cubic", "nearest"):
            raise BadInput(f"rvq: pool is mean or medoid and up is cubic or nearest, not pool={pool!r}, up={up!r}")
        if codes < 1 or code_width < 2 or turns < 1:
            raise BadInput(
                f"rvq: codes and turns are at least 1 and code_width 2, not codes={codes}, turns={turns}, "
                f"code_width={code_width}"
            )
        if head not in ("places", "categorical"):
            raise BadInput(f"rvq: head is places or categorical, not {head!r}")
        if min(lengths) < 1 or max(lengths) > steps:
            raise BadInput(f"rvq: lengths={list(lengths)} must lie in 1..{steps}, the steps of a sequence")
        if turns > 1 and (lengths[-1] != steps or turns > steps):
            raise BadInput(f"rvq: turns={turns} wants a last scale of {steps} tokens, one a step, and at most as many turns")
        if not 0 <= lag <= turns:
            raise BadInput(f"rvq: lag={lag} lies in 0..{turns}, the turns")
        whole = Schedule.coarse_to_fine(lengths, steps)
        turn, past_of = turns_of(lengths[-1], turns, lag)
        known = past_of.shape[1]
        self.register_buffer("order", torch.argsort(turn, stable=True), persistent=False)
        self.register_buffer("past_of", past_of, persistent=False)
        at_once = whole.times[: -lengths[-1]]
        self.schedule = Schedule(
            (*lengths[:-1], *torch.bincount(turn).tolist()),
            (*at_once, *(whole.times[len(at_once) + i] for i in self.order.tolist())),
        )
        self.register_buffer("scale_of", whole.group_of(), persistent=False)
        self.turns = turns
        self.neighbour = (12 / mapper.n_cells[0]) ** 0.5  # about how far apart neighbouring cells lie
        self.codec = Codec(
            mapper,
            steps,
            lengths,
            Codebook(codes, code_width, decay=decay, revive=revive, rate=rate * self.neighbour**2),
            Transformer(code_width, depth=depth, heads=heads, dropout=dropout, adaptive=False) if depth else None,
            Transformer(code_width, depth=depth, heads=heads, dropout=dropout, adaptive=False) if depth else None,
            commitment,
            pool,
            up,
        )
        given = (1 + known) * code_width
        learned = width - given if head == "places" else width
        if learned < 1:
            raise BadInput(
                f"rvq: a width of {width} cannot hold {1 + known} codes of {code_width}; lower --set tokenizer.code_width, "
                "or take --set tokenizer.head=categorical"
            )
        self.read = nn.Linear(given, learned)
        self.scale = nn.Parameter(torch.randn(len(lengths), learned) * 0.3)
        self.when = nn.Parameter(torch.randn(sum(lengths[:-1]) + turns, learned) * 0.3)
        self.window = nn.Parameter(torch.randn(-(-lengths[-1] // turns), learned) * 0.3)
        places = head == "places"
        self.head = CodebookHead(width, self.codec.codebook, known=known) if places else CategoricalHead(width, codes)

    def encode(self, sequences: Int[Tensor, "B T"]) -> Int[Tensor, "B L"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        *coarse, finest = self.codec.quantise(sequences)[0]
        return torch.cat([*coarse, finest[:, self.order]], dim=1)

    def decode(self, tokens: Int[Tensor, "B L"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        rows = max(1, LARGEST // (len(self.codec.when) * len(self.codec.embed[0].weight)))
        cells = []
        for part in tokens.split(rows):  # the logits over all cells are large
            *_, running = self.codec.replay(self._by_scale(part))
            cells.append(self.codec.places(running).argmax(-1))
        return torch.cat(cells)

    def inputs(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The running feature before each scale, averaged to the length of that scale."""
        codes = self._by_scale(tokens)
        *before, _ = self.codec.replay(codes)
        coarse = [self.codec.shrink(k, running) for k, running in enumerate(before[:-1])]
        finest = self.codec.shrink(len(before) - 1, before[-1])
        past = self._past(finest, self.codec.codebook.lookup(codes[-1]))
        here = torch.cat([*coarse, finest[:, self.order]], dim=1)
        nothing = past.new_zeros(len(past), here.shape[1] - past.shape[1], past.shape[2])
        return self._input(here, torch.cat([nothing, past[:, self.order]], dim=1), slice(None))

    def next_inputs(self, tokens: Int[Tensor, "B l"], k: int, state: State) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        group, first_turn = self.schedule.group(k), len(self.codec.lengths) - 1
        if k == 0:
            state["running"] = self.codec.silence(len(tokens))
        elif k <= first_turn:
            state["running"] = self.codec.add(k - 1, state["running"], tokens[:, self.schedule.group(k - 1)])
        here = self.codec.shrink(min(k, first_turn), state["running"])
        if k < first_turn:
            return self._input(here, here.new_zeros(*here.shape[:2], self.past_of.shape[1] * here.shape[2]), group)
        if k == first_turn:
            state["said"] = torch.zeros_like(here)
        else:
            state["said"][:, self._steps(k - 1)] = self.codec.codebook.lookup(tokens[:, self.schedule.group(k - 1)])
        turn = self._steps(k)
        return self._input(here[:, turn], self._past(here, state["said"])[:, turn], group)

    def _steps(self, k: int) -> Int[Tensor, "n"]:
        """The steps that group ``k`` decides, one of the turns of the last scale."""
        group, at_once = self.schedule.group(k), self.schedule.n_tokens - len(self.order)
        return self.order[group.start - at_once : group.stop - at_once]

    def times(self) -> Float[Tensor, "L D"]:
        """What is learned of the time of each token: of the last scale, of its turn and of its window of turns apart."""
        *coarse, finest = self.when.split([sum(self.codec.lengths[:-1]), self.turns])
        last = finest[self.order % self.turns] + self.window[self.order // self.turns]
        return torch.cat([*coarse, last])

    def _by_scale(self, tokens: Int[Tensor, "B L"]) -> list[Int[Tensor, "B _"]]:
        """The codes of each scale, in the order of time."""
        *coarse, finest = tokens.split(self.codec.lengths, dim=1)
        return [*coarse, finest[:, self.order.argsort()]]

    def _past(self, here: Float[Tensor, "B n d"], said: Float[Tensor, "B n d"]) -> Float[Tensor, "B n p"]:
        """How far it is, from where each step of the last scale stands, to where the steps before it were sent that
        `past_of` names; 0 for those that are not decided before it.
        """
        way = (here + said)[:, self.past_of.clamp(min=0)] - here[:, :, None]
        return (way * (self.past_of >= 0)[..., None]).flatten(2)

    def _input(self, here: Float[Tensor, "B n d"], past: Float[Tensor, "B n p"], tokens: slice) -> Float[Tensor, "B n D"]:
        """What is learned of where it stands, its past, scale and time; for `places`, what that head reads before it."""
        given = torch.cat([here, past], dim=-1)
        cells_away = torch.asinh(given / self.neighbour)  # so that one cell is as plain to see as ten
        learned = self.read(cells_away) + self.times()[tokens] + self.scale[self.scale_of[tokens]]
        return torch.cat([given, learned], dim=-1) if isinstance(self.head, CodebookHead) else learned

    def loss(self, sequences: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Cross-entropy of the decoded cells, and commitment."""
        _, running, commit = self.codec.quantise(sequences)
        logits = self.codec.places(running)
        return {"cells": F.cross_entropy(logits.flatten(0, 1), sequences.flatten().long()), "commit": commit}

    @torch.no_grad()
    def health(self, sequences: Int[Tensor, "B T"]) -> dict[str, float]:
        """Share of steps decoded right, codes in use, and their perplexity: over all scales and scale by scale."""
        tokens = torch.cat([self.encode(part) for part in sequences.split(128)])
        report = {"accuracy": (self.decode(tokens) == sequences).float().mean().item()}
        report |= {f"codes_{k}": v for k, v in codebook_use(tokens, self.head.vocabulary).items()}
        for k, codes in enumerate(self._by_scale(tokens)):
            use = codebook_use(codes, self.head.vocabulary)
            report |= {f"used_scale_{k}": use["used"], f"perplexity_scale_{k}": use["perplexity"]}
        return report


def codebook_use(tokens: Int[Tensor, "B l"], codes: int) -> dict[str, float]:
    """How many of the codes occur, and the perplexity of their frequencies."""
    counts = torch.bincount(tokens.flatten(), minlength=codes).double()
    p = counts / counts.sum()
    return {"used": float((counts > 0).sum()), "perplexity": float(torch.exp(-torch.xlogy(p, p).sum()))}


@final
class Codec(nn.Module):
    """Encoder, codebook and decoder: what the tokenizer's own training learns."""

    def __init__(
        self,
        mapper: SpatialMapper,
        steps: int,
        lengths: Sequence[int],
        codebook: Codebook,
        encoder: Transformer | None,
        decoder: Transformer | None,
        commitment: float,
        pool: str,
        up: str,
    ) -> None:
        super().__init__()
        width = codebook.table.shape[1]
        n_levels, n_scales = len(mapper.n_cells), len(lengths)
        self.lengths, self.steps, self.commitment = tuple(lengths), steps, commitment
        # the coarsest scales read the coarsest level, the finest the finest cells: M-STAR's pairing, as intended
        self.level_of = [(n_scales - 1 - k) * n_levels // n_scales for k in range(n_scales)]
        self.levels = sorted(set(self.level_of))
        self.embed = nn.ModuleList(cell_embedding(mapper, level, width) for level in self.levels)
        for level in self.levels:
            parents = torch.as_tensor(mapper.coarsen(range(mapper.n_cells[0]), level))
            self.register_buffer(f"parents_{level}", parents, persistent=False)
        for k, n in enumerate(lengths):
            # going from steps to tokens and back are two fixed matrices a scale
            nearest = F.interpolate(torch.eye(n)[None], size=steps, mode="nearest-exact")[0].T
            spread = cubic(n, steps) if up == "cubic" else nearest
            self.register_buffer(f"down_{k}", pooling(steps, n), persistent=False)
            self.register_buffer(f"up_{k}", spread.contiguous(), persistent=False)
            # for medoids: the steps of each token, its middle step again where it has fewer than others
            edges = torch.arange(n + 1) * steps
            first, last = edges[:-1] // n, (edges[1:] + n - 1) // n
            index = first[:, None] + torch.arange(int((last - first).max()))
            index = torch.where(index < last[:, None], index, (first + last)[:, None] // 2)
            self.register_buffer(f"window_{k}", index, persistent=False)
        self.pool = pool
        self.whole = Schedule.coarse_to_fine([steps], steps)
        self.encoder, self.decoder, self.codebook = encoder, decoder, codebook
        self.phi = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in lengths)
        for phi in self.phi:
            nn.init.zeros_(phi.weight)
            nn.init.zeros_(phi.bias)
        self.when = nn.Parameter(torch.randn(steps, width) * 0.02)
        # cells lie about (12 / n) ** 0.5 apart: a neighbour begins e ** -4 times as likely
        self.sharpness = nn.Parameter(torch.tensor(mapper.n_cells[0] / 3.0).log())
        self.context = nn.Parameter(torch.zeros(2))

    def features(self, sequences: Int[Tensor, "B T"]) -> list[Float[Tensor, "B T d"]]:
        """The encoded sequence on the level that each scale reads; levels share one encoder."""
        rows = []
        for embed, level in zip(self.embed, self.levels, strict=True):
            parents: Tensor = getattr(self, f"parents_{level}")
            rows.append(embed(parents[sequences.long()]))
        stacked = torch.cat(rows)
        if self.encoder is not None:
            stacked = stacked + self.context[0] * self.encoder(stacked + self.when, self.whole)
        encoded = stacked.chunk(len(rows))
        return [encoded[self.levels.index(level)] for level in self.level_of]

    def quantise(
        self, sequences: Int[Tensor, "B T"]
    ) -> tuple[list[Int[Tensor, "B _"]], Float[Tensor, "B T d"], Float[Tensor, ""]]:
        """Codes of all scales, the running feature after the last, and the commitment loss."""
        running = self.silence(len(sequences))
        codes, residuals, commit = [], [], torch.zeros((), device=running.device)
        for k, feature in enumerate(self.features(sequences)):
            gap = feature - running.detach()
            residual = (self.medoid(k, gap) if self.pool == "medoid" else self.shrink(k, gap)).float()
            code = self.codebook.nearest(residual.detach())
            chosen = self.codebook.lookup(code)
            commit = commit + (residual - chosen).square().sum(-1).mean()
            running = self.refine(k, running, residual + (chosen - residual).detach())
            codes.append(code)
            residuals.append(residual.detach())
        if self.training:
            self.codebook.update(torch.cat(residuals, dim=1), torch.cat(codes, dim=1))
        # in the unit of the logits, so that it weighs the same whatever the scale of the map
        return codes, running, self.commitment * self.sharpness.exp().detach() * commit / len(codes)

    def silence(self, batch: int) -> Float[Tensor, "B T d"]:
        """The running feature before anything is said."""
        return self.when.new_zeros(batch, *self.when.shape)

    def shrink(self, k: int, feature: Float[Tensor, "B T d"]) -> Float[Tensor, "B n d"]:
        """Average over the time of each token of scale ``k``."""
        down: Tensor = getattr(self, f"down_{k}")
        return down.to(feature.dtype) @ feature

    def medoid(self, k: int, feature: Float[Tensor, "B T d"]) -> Float[Tensor, "B n d"]:
        """Of the steps of each token of scale ``k``, the one nearest to all others; the first among equals."""
        window: Tensor = getattr(self, f"window_{k}")
        steps = feature[:, window]
        with torch.no_grad():
            best = torch.cdist(steps, steps).sum(-1).argmin(-1)
        return steps.gather(2, best[..., None, None].expand(-1, -1, 1, steps.shape[-1]))[:, :, 0]

    def refine(self, k: int, running: Float[Tensor, "B T d"], code: Float[Tensor, "B n d"]) -> Float[Tensor, "B T d"]:
        """The running feature with what scale ``k`` says."""
        up: Tensor = getattr(self, f"up_{k}")
        said = up.to(code.dtype) @ code
        return running + said + self.phi[k](said.transpose(1, 2)).transpose(1, 2)

    def add(self, k: int, running: Float[Tensor, "B T d"], codes: Int[Tensor, "B n"]) -> Float[Tensor, "B T d"]:
        """The same, from the ids of the codes."""
        return self.refine(k, running, self.codebook.lookup(codes))

    def replay(self, codes: Sequence[Int[Tensor, "B _"]]) -> Iterator[Float[Tensor, "B T d"]]:
        """The running feature before each scale, and after the last one."""
        running = self.silence(len(codes[0]))
        yield running
        for k, of_scale in enumerate(codes):
            running = self.add(k, running, of_scale)
            yield running

    def places(self, running: Float[Tensor, "B T d"]) -> Float[Tensor, "B T cells"]:
        """Logits over the finest cells at each step."""
        if self.decoder is not None:
            running = running + self.context[1] * self.decoder(running + self.when, self.whole)
        cells = self.embed[0].weight  # level 0, the finest, is always read by the last scale
        nearness = running @ cells.T - 0.5 * cells.square().sum(-1)  # less half |running|^2, which changes nothing
        return (2 * self.sharpness.exp() * nearness).float()
