"""What the routers share: the best experts by score, with a gradient even for the best one alone."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mobtk.contracts import Routing
from mobtk.errors import BadInput


def check_top_k(top_k: int, n_experts: int) -> int:
    """``top_k``, if there are as many experts."""
    if not 1 <= top_k <= n_experts:
        raise BadInput(f"router: top_k={top_k} wants at least that many experts, there are {n_experts}; lower top_k")
    return top_k


def route(logits: Float[Tensor, "M E"], top_k: int, balance: float) -> Routing:
    """Softmax, then the ``top_k`` experts with weights that sum to 1.

    The sum they are divided by carries no gradient, so that with one expert the weight is 1 and its score still
    learns (a plain renormalisation would leave the router without any gradient at ``top_k = 1``).

    The loss is the load balance of Switch transformers (Fedus et al. 2021, https://arxiv.org/abs/2101.03961,
    equation 4): ``E`` times the sum over experts of share of sequences times mean probability; 1 when even.
    """
    p = logits.float().softmax(-1)
    best, experts = p.topk(top_k, dim=-1)
    share = F.one_hot(experts, p.shape[-1]).float().mean(dim=(0, 1))
    loss = balance * p.shape[-1] * torch.sum(share * p.mean(0)) if balance else None
    return Routing(best / best.sum(-1, keepdim=True).detach(), experts, loss)
