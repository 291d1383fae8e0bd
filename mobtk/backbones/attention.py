"""What the attention backbones share: attention under a schedule, with or without a cache."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mobtk.contracts import State
from mobtk.schedule import Schedule


class KeyValueCache:
    """Keys and values of all groups so far of one layer, in room taken once for the whole schedule."""

    def __init__(self, batch: int, tokens: int) -> None:
        self.batch, self.tokens = batch, tokens
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor, at: int) -> tuple[Tensor, Tensor]:
        """Write those of the next group, which begins at token ``at``; return those of all groups so far."""
        if self.keys is None or self.values is None:
            room = (self.batch, keys.shape[1], self.tokens, keys.shape[3])
            self.keys, self.values = keys.new_empty(room), values.new_empty(room)
        end = at + keys.shape[2]
        self.keys[:, :, at:end], self.values[:, :, at:end] = keys, values
        return self.keys[:, :, :end], self.values[:, :, :end]


def new_state(batch: int, schedule: Schedule, depth: int) -> State:
    """The state of an attention backbone: the token it has come to, and a cache a layer."""
    return {"at": 0, "caches": [KeyValueCache(batch, schedule.n_tokens) for _ in range(depth)]}


def attend(
    q: Float[Tensor, "B heads n d"],
    k: Float[Tensor, "B heads n d"],
    v: Float[Tensor, "B heads n d"],
    schedule: Schedule,
    cache: KeyValueCache | None,
    at: int,
    dropout: float = 0.0,
) -> Float[Tensor, "B n width"]:
    """Attention to a token's own group and earlier ones, heads merged.

    With a cache no mask is needed: everything in it is of the group at hand or before.
    """
    if cache is not None:
        k, v = cache.append(k, v, at)
        out = F.scaled_dot_product_attention(q, k, v)
    elif schedule.is_autoregressive:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
    else:
        mask = schedule.mask(q.device) if schedule.n_groups > 1 else None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


def split_heads(x: Float[Tensor, "B n width"], heads: int) -> Float[Tensor, "B heads n d"]:
    """``(B, n, heads * d)`` -> ``(B, heads, n, d)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def rotate(x: Float[Tensor, "B heads n d"], time: Float[Tensor, "n"], base: float) -> Float[Tensor, "B heads n d"]:
    """Rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864), by the time a token stands for.

    Dimension ``i`` turns together with dimension ``i + d / 2``, by ``time * base ** (-2 i / d)``.
    """
    half = x.shape[-1] // 2
    angle = time[:, None] * base ** (-torch.arange(half, device=x.device) / half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
