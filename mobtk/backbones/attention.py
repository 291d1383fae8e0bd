"""What the attention backbones share: attention under a schedule, with or without a cache."""

from bisect import bisect

import torch
from jaxtyping import Float, Int
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
    lengths: Int[Tensor, "B"] | None = None,
) -> Float[Tensor, "B n width"]:
    """Attention to a token's own group and earlier ones, heads merged; to no padding, which stands after ``lengths``.

    With a cache no mask is needed for one group: everything in it is of that group or before. Nor does padding need one
    where tokens come one by one: no token looks at what comes after it.
    """
    if cache is not None:
        if lengths is not None:
            raise ValueError("sequences of unequal length have no common cache; bring together those of one length")
        n = q.shape[2]
        k, v = cache.append(k, v, at)
        alone = bisect(schedule.starts, at) == bisect(schedule.starts, at + n - 1)
        mask = None if alone else schedule.mask(q.device)[at : at + n, : at + n]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    elif schedule.is_autoregressive:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
    else:
        mask = schedule.mask(q.device) if schedule.n_groups > 1 else None
        if lengths is not None:
            there = (torch.arange(k.shape[2], device=k.device) < lengths[:, None])[:, None, None]
            mask = there if mask is None else mask & there
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


def split_heads(x: Float[Tensor, "B n width"], heads: int) -> Float[Tensor, "B heads n d"]:
    """``(B, n, heads * d)`` -> ``(B, heads, n, d)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
