"""How a code is drawn: cooler where the model is surer than elsewhere in the same scale."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from mobtk.tokenizers.heads import CategoricalHead, SoftmaxHead


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

    def tempered(self, logits: Float[Tensor, "B n V"]) -> Float[Tensor, "B n V"]:
        """The logits over the temperature of each token; the ``n`` tokens are those of one scale."""
        return logits / (self.hottest - confidence(logits))[..., None]


def confidence(logits: Float[Tensor, "B n V"]) -> Float[Tensor, "B n"]:
    """The largest logit of each token between the smallest such of its sequence, 0, and the largest, 1."""
    best = logits.amax(-1)
    low, high = best.amin(1, keepdim=True), best.amax(1, keepdim=True)
    return (best - low) / (high - low).clamp(min=1e-8)
