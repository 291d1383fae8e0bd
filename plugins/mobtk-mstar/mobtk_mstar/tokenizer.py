"""MST-Tokenizer: a week as codes of eight scales, each on its own span of time and size of cell."""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import SpatialMapper, State, Tokenizer
from mobtk.errors import BadInput
from mobtk.schedule import Schedule
from mobtk.tokenizers.codebook import Codebook
from mobtk.tokenizers.rvq import codebook_use, cubic, default_lengths, pooling
from mobtk_mstar.head import ConfidenceHead


@final
class MSTTokenizer(Tokenizer):
    """The multi-scale tokenizer of M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314, section on MST-Tokenizer).

    By default without the faults of the authors' code; with ``pairing="published"``, ``feedback=False``,
    ``codebook="gradient"`` and ``smooth=True`` as that code has it.

    One row of features a scale: the week as cells of some level, through one encoder. Scale ``k`` averages its row to
    ``n_k`` tokens, ``z_k``. What the scales before have said, ``F_{k-1}``, is spread to ``n_k`` tokens by cubic
    interpolation and refined by ``phi_{k-1}``; the code of scale ``k`` stands for what is left, and is added.

    Args:
        lengths: tokens of each scale, coarse to fine; the last as many as there are steps.
        codes: ``V``, one codebook for all scales.
        depth, heads: of the transformers of encoder and decoder (post-norm, feed-forward four times as wide).
        pairing: which row each scale reads. ``intended``: the coarsest cells for the coarsest scale, down to the finest.
            ``published``: an index off by one lets the coarsest scale read the finest cells (rows 0, 7, 6, ... 2, 0).
        feedback: whether a scale sees, in training and in encoding, the *codes* before it, so that it can repair their
            error; else ``z_{k-1}`` itself stands for all that was said, and errors add up.
        codebook: ``average``, moving averages with revival, nearest by distance
            (:class:`~mobtk.tokenizers.codebook.Codebook`); ``gradient``, nearest by angle and learned at the last
            scale only, which collapses.
        smooth: whether each step is averaged with its neighbours before it is decoded in a generation, though it is not
            in training.
        commitment: weight of the encoder's loss for straying from its codes.
        decay, revive: of the codebook of moving averages.
        hottest: see :class:`~mobtk_mstar.head.ConfidenceHead`.
        dropout: of encoder and decoder, while they train. The authors leave it on while the generator trains on the
            codes; here codes are made once, without it.
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
        codes: int = 4096,
        depth: int = 2,
        heads: int = 8,
        pairing: str = "intended",
        feedback: bool = True,
        codebook: str = "average",
        smooth: bool = False,
        commitment: float = 0.1,
        decay: float = 0.99,
        revive: float = 0.1,
        hottest: float = 1.5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        lengths = tuple(lengths or default_lengths(steps))
        if pairing not in ("intended", "published") or codebook not in ("average", "gradient"):
            raise BadInput(
                f"mst: pairing is intended or published and codebook average or gradient, not pairing={pairing!r}, "
                f"codebook={codebook!r}"
            )
        if min(lengths) < 1 or lengths[-1] != steps:
            raise BadInput(f"mst: lengths={list(lengths)} are at least 1 and end with {steps}, the steps of a sequence")
        if heads < 1 or width % heads:
            raise BadInput(f"mst: a width of {width} cannot have {heads} heads; choose a divisor")
        if codes < 1 or depth < 1 or not hottest > 1:
            raise BadInput(
                f"mst: codes and depth are at least 1 and hottest above 1, not codes={codes}, depth={depth}, "
                f"hottest={hottest}"
            )
        self.schedule = Schedule.coarse_to_fine(lengths, steps)
        self.smooth = smooth
        self.register_buffer("scale_of", self.schedule.group_of(), persistent=False)
        book: Codebook | GradientCodebook
        if codebook == "average":
            book = Codebook(codes, width, decay=decay, revive=revive, rate=0.0)
        else:
            book = GradientCodebook(codes, width)
        rows = rows_of(len(lengths), pairing)
        self.codec = Codec(mapper, lengths, width, book, rows, depth, heads, dropout, feedback, commitment)
        self.read = nn.Linear(width, width)
        self.scale = nn.Embedding(len(lengths), width)
        self.position = nn.Parameter(torch.zeros(self.schedule.n_tokens, width))
        self.begin = nn.Parameter(torch.randn(width) * 0.02)
        for module in (self.read, self.scale):
            nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.read.bias)
        self.head = ConfidenceHead(width, codes, hottest=hottest)

    def encode(self, sequences: Int[Tensor, "B T"]) -> Int[Tensor, "B L"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return torch.cat(self.codec.quantise(self.codec.features(sequences))[0], dim=1)

    def decode(self, tokens: Int[Tensor, "B L"]) -> Int[Tensor, "B T"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        return self._decode(tokens, self.smooth)

    def _decode(self, tokens: Int[Tensor, "B L"], smooth: bool) -> Int[Tensor, "B T"]:
        said = self.codec.replay(tokens.split(self.schedule.lengths, dim=1))[-1]
        if smooth:
            said = F.avg_pool1d(F.pad(said.transpose(1, 2), (1, 1), mode="replicate"), 3, stride=1).transpose(1, 2)
        return self.codec.places(said).argmax(-1)

    def inputs(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """What was said before each scale, spread to its length and refined."""
        x = [self.begin.expand(len(tokens), self.schedule.lengths[0], -1)]
        if self.schedule.n_groups > 1:
            said = self.codec.replay(tokens.split(self.schedule.lengths, dim=1)[:-1])
            x.append(self.read(torch.cat([self.codec.refine(k, f) for k, f in enumerate(said)], dim=1)))
        return torch.cat(x, dim=1) + self.position + self.scale(self.scale_of)

    def next_inputs(self, tokens: Int[Tensor, "B l"], k: int, state: State) -> Float[Tensor, "B n D"]:
        """See :class:`~mobtk.contracts.Tokenizer`."""
        group = self.schedule.group(k)
        if k == 0:
            x = self.begin.expand(len(tokens), self.schedule.lengths[0], -1)
        else:
            said = self.codec.codebook.lookup(tokens[:, self.schedule.group(k - 1)])
            if k > 1:
                said = said + state["before"]
            state["before"] = self.codec.refine(k - 1, said)
            x = self.read(state["before"])
        return x + self.position[group] + self.scale(self.scale_of[group])

    def loss(self, sequences: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Cross-entropy of the decoded cells, and what keeps codes and features together."""
        features = self.codec.features(sequences)
        said, terms = self.codec.learn(features)
        logits = self.codec.places(said)
        return {"cells": F.cross_entropy(logits.flatten(0, 1), sequences.flatten().long()), **terms}

    @torch.no_grad()
    def health(self, sequences: Int[Tensor, "B T"]) -> dict[str, float]:
        """Share of steps decoded right (never smoothed), codes in use, and their perplexity: in all, and by scale."""
        tokens = torch.cat([self.encode(part) for part in sequences.split(128)])
        decoded = torch.cat([self._decode(part, False) for part in tokens.split(128)])
        report = {"accuracy": (decoded == sequences).float().mean().item()}
        vocabulary = self.head.vocabulary
        report |= {f"codes_{k}": v for k, v in codebook_use(tokens, vocabulary).items()}
        for k, group in enumerate(self.schedule.groups()):
            use = codebook_use(tokens[:, group], vocabulary)
            report |= {f"used_scale_{k}": use["used"], f"perplexity_scale_{k}": use["perplexity"]}
        return report


def rows_of(scales: int, pairing: str) -> list[int]:
    """Which of as many rows, finest cells first, each scale reads: as intended, or as the authors' code has it."""
    if pairing == "intended":
        return [scales - 1 - k for k in range(scales)]
    return [*(-k % scales for k in range(scales - 1)), 0]


@final
class GradientCodebook(nn.Module):
    """Codes that are learned by gradient and chosen by their angle, as in the authors' code."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(codes, width))

    def nearest(self, x: Float[Tensor, "*n d"]) -> Int[Tensor, "*n"]:
        """The code of the smallest angle to each vector."""
        with torch.autocast(x.device.type, enabled=False):
            return (F.normalize(x.float(), dim=-1) @ F.normalize(self.table, dim=-1).T).argmax(-1)

    def lookup(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """The vectors of codes."""
        return F.embedding(codes, self.table)


@final
class Codec(nn.Module):
    """Encoder, codebook and decoder: what the tokenizer's own training learns."""

    position: Tensor

    def __init__(
        self, mapper: SpatialMapper, lengths: Sequence[int], width: int, codebook: Codebook | GradientCodebook,
        rows: Sequence[int], depth: int, heads: int, dropout: float, feedback: bool, commitment: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.codebook = codebook
        scales, steps = len(lengths), lengths[-1]
        self.lengths, self.feedback, self.commitment = tuple(lengths), feedback, commitment
        self.level_of = [row * len(mapper.n_cells) // scales for row in rows]
        self.levels = sorted(set(self.level_of))
        self.embed = nn.ModuleList(nn.Embedding(mapper.n_cells[level], width) for level in self.levels)
        for level in self.levels:
            parents = torch.as_tensor(mapper.coarsen(range(mapper.n_cells[0]), level))
            self.register_buffer(f"parents_{level}", parents, persistent=False)
        for k, n in enumerate(lengths):
            self.register_buffer(f"down_{k}", pooling(steps, n), persistent=False)
            if k:
                self.register_buffer(f"up_{k - 1}", cubic(lengths[k - 1], n), persistent=False)
        self.register_buffer("position", sinusoids(steps, width), persistent=False)

        def transformer() -> nn.TransformerEncoder:
            layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, F.gelu, batch_first=True)
            return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

        self.encoder, self.decoder = transformer(), transformer()
        self.phi = nn.ModuleList(Phi(width) for _ in lengths[1:])
        self.output = nn.Linear(width, mapper.n_cells[0])

    def features(self, sequences: Int[Tensor, "B T"]) -> list[Float[Tensor, "B T D"]]:
        """The encoded sequence on the level that each scale reads; each level is encoded once."""
        rows = []
        for embed, level in zip(self.embed, self.levels, strict=True):
            parents: Tensor = getattr(self, f"parents_{level}")
            rows.append(embed(parents[sequences.long()]))
        encoded = self.encoder(torch.cat(rows) + self.position).chunk(len(rows))
        return [encoded[self.levels.index(level)] for level in self.level_of]

    def shrink(self, k: int, feature: Float[Tensor, "B T D"]) -> Float[Tensor, "B n D"]:
        """``z_k``: averages over the time of each token of scale ``k``."""
        down: Tensor = getattr(self, f"down_{k}")
        return down.to(feature.dtype) @ feature

    def refine(self, k: int, said: Float[Tensor, "B n D"]) -> Float[Tensor, "B m D"]:
        """What scale ``k`` knows, spread to the tokens of the next one, through ``phi_k``."""
        up: Tensor = getattr(self, f"up_{k}")
        return self.phi[k](up.to(said.dtype) @ said)

    def quantise(
        self, features: Sequence[Float[Tensor, "B T D"]]
    ) -> tuple[list[Int[Tensor, "B _"]], list[Float[Tensor, "B _ D"]]]:
        """Codes of all scales, and the residuals they stand for."""
        codes, residuals = [], []
        told: Tensor | None = None
        for k, feature in enumerate(features):
            z = self.shrink(k, feature)
            before = 0.0 if told is None else self.refine(k - 1, told)
            residuals.append((z - before).float())
            codes.append(self.codebook.nearest(residuals[-1].detach()))
            told = before + self.codebook.lookup(codes[-1]) if self.feedback else z
        return codes, residuals

    def learn(
        self, features: Sequence[Float[Tensor, "B T D"]]
    ) -> tuple[Float[Tensor, "B T D"], dict[str, Float[Tensor, ""]]]:
        """What the decoder reads, differentiable down to the features, and the losses of the quantisation."""
        if self.feedback:
            return self._learn_with_feedback(features)
        codes, residuals = self.quantise(features)
        zs = [self.shrink(k, feature) for k, feature in enumerate(features)]
        said = self.replay(codes)
        self._update(residuals, codes)
        commit = torch.stack([F.mse_loss(z, f.detach()) for z, f in zip(zs, said, strict=True)]).mean()
        mean = torch.stack(list(features)).mean(0)
        decoded = mean + (said[-1] - mean).detach()
        return decoded, {"codebook": F.mse_loss(said[-1], zs[-1].detach()), "commit": self.commitment * commit}

    def _learn_with_feedback(
        self, features: Sequence[Float[Tensor, "B T D"]]
    ) -> tuple[Float[Tensor, "B T D"], dict[str, Float[Tensor, ""]]]:
        """Gradients pass straight through each code to the row that its scale read, and through every ``phi``."""
        codes, residuals, commit = [], [], []
        told: Tensor | None = None
        for k, feature in enumerate(features):
            before = 0.0 if told is None else self.refine(k - 1, told)
            residual = (self.shrink(k, feature) - before).float()
            code = self.codebook.nearest(residual.detach())
            chosen = self.codebook.lookup(code)
            commit.append(F.mse_loss(residual, chosen.detach()))
            told = before + residual + (chosen - residual).detach()
            codes.append(code)
            residuals.append(residual)
        assert told is not None
        self._update(residuals, codes)
        terms = {"commit": self.commitment * torch.stack(commit).mean()}
        if isinstance(self.codebook, GradientCodebook):
            gaps = [F.mse_loss(self.codebook.lookup(c), r.detach()) for c, r in zip(codes, residuals, strict=True)]
            terms["codebook"] = torch.stack(gaps).mean()
        return told, terms

    def _update(self, residuals: Sequence[Tensor], codes: Sequence[Tensor]) -> None:
        if self.training and isinstance(self.codebook, Codebook):
            self.codebook.update(torch.cat([r.detach() for r in residuals], dim=1), torch.cat(list(codes), dim=1))

    def replay(self, codes: Sequence[Int[Tensor, "B _"]]) -> list[Float[Tensor, "B _ D"]]:
        """``F_k``: what is said after each scale."""
        said = [self.codebook.lookup(codes[0])]
        for k, of_scale in enumerate(codes[1:]):
            said.append(self.refine(k, said[-1]) + self.codebook.lookup(of_scale))
        return said

    def places(self, said: Float[Tensor, "B T D"]) -> Float[Tensor, "B T cells"]:
        """Logits over the finest cells at each step."""
        return self.output(self.decoder(said + self.position)).float()


@final
class Phi(nn.Module):
    """``phi``: half a convolution over three tokens, then a small network at each, both added to what they read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(width, width, 3, padding=1)
        self.network = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B n D"]:
        """Keeps the shape."""
        mixed = x + 0.5 * self.convolve(x.transpose(1, 2)).transpose(1, 2)
        return mixed + self.network(mixed)


def sinusoids(steps: int, width: int) -> Float[Tensor, "T D"]:
    """Fixed positions (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5)."""
    angle = torch.arange(steps)[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
