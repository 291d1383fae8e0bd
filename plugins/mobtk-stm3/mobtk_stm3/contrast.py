"""The causal contrastive loss among experts, as it is meant and as it is published."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEGATIVES = 10


def intended_contrast(
    features: Float[Tensor, "M Q D"], experts: Int[Tensor, "M"], temperature: float, gamma: float
) -> Float[Tensor, ""]:
    """Pull each scale of a sequence to its coarser ones, push it away from sequences that other experts serve.

    The loss of Chen et al. 2025 as far as their code lets one infer it: for scale ``p`` the positives are the scales
    ``q > p`` of the same sequence, their similarity weighted by ``(q - p + 1)^gamma``; negatives are the features of
    :data:`NEGATIVES` sequences drawn at random, of which those with the same expert do not count.

    Args:
        features: of each sequence and scale, fine to coarse, of length 1.
        experts: which expert made them.
        temperature: similarities are divided by it.
        gamma: see above.
    """
    m, scales, _ = features.shape
    steps = torch.arange(scales, device=features.device)
    apart = steps[None] - steps[:, None]
    coarser = apart > 0
    weights = (apart.clamp(min=0) + 1.0) ** gamma
    positives = torch.einsum("mpd,mqd->mpq", features, features) / temperature * weights
    positives = positives.masked_fill(~coarser, float("-inf"))
    other = torch.randint(m, (m, NEGATIVES), device=features.device)
    scale = torch.randint(scales, (m, NEGATIVES), device=features.device)
    negatives = torch.einsum("mpd,mkd->mpk", features, features[other, scale]) / temperature
    same = experts[other] == experts[:, None]
    negatives = negatives.masked_fill(same[:, None], float("-inf"))
    logits = torch.cat([positives, negatives], -1)[:, :-1]  # the coarsest scale has no coarser one
    log_p = logits.log_softmax(-1)[..., :scales]
    return -log_p.masked_fill(~coarser[:-1], 0.0).sum() / (m * coarser.sum())


def published_contrast(
    features: Float[Tensor, "M Q D"], experts: Int[Tensor, "M"], n_experts: int, temperature: float, gamma: float
) -> Float[Tensor, ""]:
    """What the authors' code computes instead.

    Similarities below and on the diagonal are multiplied by 0 and stay in the softmax; all cells but the first and the last
    of the diagonal count as positives; a negative is of another expert's slot, which is empty (0) unless that expert served
    the sequence that was drawn. The mean over experts of the mean over each one's sequences.
    """
    m, scales, _ = features.shape
    steps = torch.arange(scales, device=features.device)
    apart = steps[None] - steps[:, None]
    upper = (apart > 0) * (apart.clamp(min=0) + 1.0) ** gamma
    within = torch.einsum("mpd,mqd->mpq", features, features) / temperature * upper
    drawn = torch.randint(1, max(m, 2), (m, NEGATIVES), device=features.device)
    other = (torch.arange(m, device=features.device)[:, None] + drawn) % m
    scale = torch.randint(scales, (m, NEGATIVES), device=features.device)
    slot = (experts[:, None] + torch.randint(1, max(n_experts, 2), (m, NEGATIVES), device=features.device)) % max(
        n_experts, 2
    )
    filled = (experts[other] == slot)[:, None]
    negatives = torch.einsum("mpd,mkd->mpk", features, features[other, scale]) / temperature * filled
    log_p = torch.cat([within, negatives], -1).log_softmax(-1)[..., :scales]
    positive = torch.ones_like(upper, dtype=torch.bool)
    positive[0, 0] = positive[-1, -1] = False
    of_sequence = -log_p[:, positive].mean(1)
    return torch.stack([of_sequence[experts == e].mean() for e in experts.unique()]).mean()
