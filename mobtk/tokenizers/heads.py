"""Heads: from what a backbone says of a token to a distribution over tokens."""

import math
from abc import abstractmethod
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import Head
from mobtk.tokenizers.codebook import Codebook


class SoftmaxHead(Head):
    """What heads over a vocabulary share: once there are logits, loss and draws follow."""

    vocabulary: int

    @abstractmethod
    def logits(self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"]) -> Float[Tensor, "B n V"]:
        """Unnormalised log-probabilities, in float32."""

    def tempered(self, logits: Float[Tensor, "B n V"]) -> Float[Tensor, "B n V"]:
        """The logits that are drawn from, where a head draws some tokens warmer than others."""
        return logits

    def loss(
        self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"], tokens: Int[Tensor, "B n"]
    ) -> Float[Tensor, "B n"]:
        """See :class:`~mobtk.contracts.Head`."""
        return F.cross_entropy(self.logits(hidden, inputs).flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)

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
        return draw(self.tempered(self.logits(hidden, inputs)), temperature, top_k, top_p, min_p, share, generator)


@final
class CategoricalHead(SoftmaxHead):
    """A softmax over a vocabulary.

    Args:
        width: ``D``.
        vocabulary: ``V``.
        tied: an embedding table ``(V, D)`` to share, as GPT-2 does with its input embedding.
    """

    def __init__(self, width: int, vocabulary: int, *, tied: nn.Embedding | None = None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.project = nn.Linear(width, vocabulary, bias=tied is None)
        nn.init.normal_(self.project.weight, std=0.02)
        if tied is not None:
            self.project.weight = tied.weight
        else:
            nn.init.zeros_(self.project.bias)

    def logits(self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"]) -> Float[Tensor, "B n V"]:
        """Unnormalised log-probabilities, in float32."""
        return self.project(hidden).float()


@final
class CodebookHead(SoftmaxHead):
    """A softmax over the codes of a codebook that knows where the codes lie, and where the sequence stands.

    The backbone says where it wants to be, ``p``; the first channels of its inputs say where the codes so far have
    led, ``f``. A code ``e`` that leads from there to ``p`` is likely: the logits are ``s (q . e - |e|^2 / 2)`` with
    ``q = p - f``, up to a constant the negative squared distance from ``f + e`` to ``p``; plus a free linear map; plus
    a learned bonus for the one code that leads to each of a few known places, which the next channels of the inputs
    say (people stay and return: without the bonus, staying at a rare place would have to be learned for every place).

    Args:
        width: ``D``, more than the codes that the inputs begin with.
        codebook: whose codes it chooses among; not trained by the head.
        known: how many known places there are.
    """

    def __init__(self, width: int, codebook: Codebook, *, known: int) -> None:
        super().__init__()
        self.vocabulary, self.code_width = codebook.table.shape
        self._codebook = (codebook,)  # in a tuple: not a submodule of the head
        self.free = nn.Linear(width, self.vocabulary)
        self.place = nn.Linear(width, self.code_width)
        self.bonus = nn.Linear(width, known) if known else None
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        nn.init.normal_(self.free.weight, std=0.02)
        nn.init.zeros_(self.free.bias)

    def logits(self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"]) -> Float[Tensor, "B n V"]:
        """Unnormalised log-probabilities, in float32."""
        codes, c = self._codebook[0].table, self.code_width
        with torch.autocast(hidden.device.type, enabled=False):
            query = self.place(hidden.float()) - inputs[..., :c].float()
            nearness = F.linear(query, codes, -0.5 * codes.square().sum(-1))
        logits = self.free(hidden).float() + self.sharpness.exp() * nearness
        if self.bonus is None:
            return logits
        known = inputs[..., c : (1 + self.bonus.out_features) * c].unflatten(-1, (-1, c))
        leads_there = self._codebook[0].nearest(known.detach())
        return logits.scatter_add(-1, leads_there, self.bonus(hidden).float())


def draw(
    logits: Float[Tensor, "B n V"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    share: Int[Tensor, "n"] | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B n"]:
    """Draw from the softmax at a temperature, among the ``top_k`` likeliest or the nucleus ``top_p`` if given.

    The nucleus (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751) is the smallest set of likeliest tokens
    that together have at least probability ``top_p``. ``min_p`` (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082)
    drops tokens less than that many times as likely as the likeliest: confident decisions become firm, open ones
    stay open.

    With ``share``, tokens of equal number are drawn with one set of Gumbel numbers (the likeliest after adding them):
    each token still follows its own distribution exactly, but neighbours that could go to one of several places go
    to the same one.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    vocabulary, tokens = logits.shape[-1], None
    if top_p is not None or (top_k is not None and share is None):
        logits, tokens = logits.topk(min(top_k or logits.shape[-1], logits.shape[-1]))
    elif top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        p = logits.softmax(-1)
        logits = logits.masked_fill(p.cumsum(-1) - p >= top_p, -torch.inf)
    if min_p is not None:
        logits = logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -torch.inf)
    if share is not None:
        if tokens is not None:  # back to the order of the vocabulary, which the shared numbers belong to
            everywhere = logits.new_full((*logits.shape[:-1], vocabulary), -torch.inf)
            logits, tokens = everywhere.scatter(-1, tokens, logits), None
        groups, index = share.unique(return_inverse=True)
        u = torch.rand(len(logits), len(groups), logits.shape[-1], generator=generator, device=logits.device)
        gumbel = -(-u.clamp_(min=1e-20).log_()).log_()
        return (logits + gumbel[:, index]).argmax(-1)
    # one random number a token: where it falls in the cumulative distribution
    ladder = logits.softmax(-1).cumsum(-1)
    u = torch.rand(ladder.shape[:-1], generator=generator, device=ladder.device)[..., None] * ladder[..., -1:]
    drawn = torch.searchsorted(ladder, u, right=True).clamp_(max=ladder.shape[-1] - 1)
    return drawn[..., 0] if tokens is None else tokens.gather(-1, drawn)[..., 0]
