"""How a code is drawn: cooler where the model is surer than elsewhere in the same scale."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mobtk.tokenizers.heads import CategoricalHead, SoftmaxHead, draw


@final
class ConfidenceHead(SoftmaxHead):
    """A softmax over the codes whose temperature depends on confidence, as in the authors' code of M-STAR.

    The confidence of a token is its largest logit, taken to 0..1 between the smallest and the largest of its scale in its
    sequence (0 where the scale is one token). Its temperature is ``hottest - confidence``, times the one that is asked for.

    Args:
        width: ``D``.
        vocabulary: ``V``.
        hottest: temperature of the least sure token: 1.5 for Beijing, 1.4 for Shenzhen in the authors' code.
    """

    def __init__(self, width: int, vocabulary: int, *, hottest: float = 1.5) -> None:
        super().__init__()
        self.categorical, self.vocabulary, self.hottest = CategoricalHead(width, vocabulary), vocabulary, hottest

    def logits(self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"]) -> Float[Tensor, "B n V"]:
        """Unnormalised log-probabilities, in float32."""
        return self.categorical.logits(hidden, inputs)

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
        """See :class:`~mobtk.contracts.Head`; the ``n`` tokens are those of one scale."""
        logits = self.logits(hidden, inputs)
        if temperature == 0:
            return logits.argmax(-1)
        heat = self.hottest - confidence(logits)
        return draw(logits / heat[..., None], temperature, top_k, top_p, min_p, share, generator)


def confidence(logits: Float[Tensor, "B n V"]) -> Float[Tensor, "B n"]:
    """The largest logit of each token between the smallest such of its sequence, 0, and the largest, 1."""
    best = logits.amax(-1)
    low, high = best.amin(1, keepdim=True), best.amax(1, keepdim=True)
    return (best - low) / (high - low).clamp(min=1e-8)
