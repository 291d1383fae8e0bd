"""The selective scan of Mamba in pure torch, without the states of all steps in memory."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 16


def selective_scan(
    u: Float[Tensor, "B L D"],
    delta: Float[Tensor, "B L D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B L N"],
    C: Float[Tensor, "B L N"],
    h: Float[Tensor, "B D N"] | None = None,
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D N"]]:
    """Run ``h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t`` and read ``y_t = C_t h_t``.

    Gu and Dao 2023 (https://arxiv.org/abs/2312.00752), algorithm 2 with the zero-order hold of ``A`` and the Euler
    step of ``B``. Here ``D`` is the inner width and ``N`` the state size. In float32 whatever comes in. Memory for
    the backward pass is one state every ``CHUNK`` steps; the states between are computed again.

    Args:
        u: inputs.
        delta: step sizes, positive.
        A: decay rates, negative.
        B: input weights.
        C: output weights.
        h: the state before the first step; zero if not given.

    Returns:
        the outputs ``y`` and the state after the last step.
    """
    if h is None:
        h = u.new_zeros(u.shape[0], u.shape[2], A.shape[1], dtype=torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        return _SelectiveScan.apply(u.float(), delta.float(), A.float(), B.float(), C.float(), h.float())


def _step(h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return torch.addcmul((delta[..., None] * A).exp_().mul_(h), (delta * u)[..., None], B[:, None])


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        checkpoints, outputs = [], []
        steps = zip(u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True)
        for t, (u_t, delta_t, B_t, C_t) in enumerate(steps):
            if t % CHUNK == 0:
                checkpoints.append(h)
            h = _step(h, u_t, delta_t, A, B_t)
            outputs.append(torch.bmm(h, C_t[..., None])[..., 0])
        ctx.save_for_backward(u, delta, A, B, C, *checkpoints)
        return torch.stack(outputs, 1), h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, *checkpoints = ctx.saved_tensors
        dh, dA = dh.clone(), torch.zeros_like(A)
        du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
        for first in range((len(checkpoints) - 1) * CHUNK, -1, -CHUNK):
            last = min(first + CHUNK, u.shape[1])
            states = [checkpoints[first // CHUNK]]
            for t in range(first, last):
                states.append(_step(states[-1], u[:, t], delta[:, t], A, B[:, t]))
            for t in range(last - 1, first - 1, -1):
                h, before = states[t - first + 1], states[t - first]
                dC[:, t] = torch.bmm(dy[:, t, None], h)[:, 0]
                dh = torch.addcmul(dh, dy[:, t, :, None], C[:, t, None])
                into = torch.bmm(dh, B[:, t, :, None])[..., 0]  # gradient of delta_t u_t
                dB[:, t] = torch.bmm((delta[:, t] * u[:, t])[:, None], dh)[:, 0]
                dh = (delta[:, t, :, None] * A).exp_().mul_(dh)
                through = dh * before  # gradient of delta_t A
                ddelta[:, t] = into * u[:, t] + (through * A).sum(-1)
                du[:, t] = into * delta[:, t]
                dA += (through * delta[:, t, :, None]).sum(0)
        return du, ddelta, dA, dB, dC, dh
