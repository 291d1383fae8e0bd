"""The selective scan of Mamba, without the states of all steps in memory: the fastest way that this machine has."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mobtk.backbones.fused_scan import fused_scan, kernel
from mobtk.errors import BadInput

CHUNK = 16
"""Steps of which one state is kept for the backward pass; the kernel keeps half as many."""

IMPLEMENTATIONS = ("mamba_ssm", "fused", "torch")
"""On a GPU, where that package is installed; compiled on first use, on a processor with a C++ compiler; everywhere."""


def implementation(device: torch.device | str = "cpu") -> str:
    """Which of :data:`IMPLEMENTATIONS` scans on a device; the environment variable ``MOBTK_SCAN`` may ask for one.

    Raises:
        BadInput: the one that is asked for is none, or cannot be had here.
    """
    device, asked = torch.device(device), os.environ.get("MOBTK_SCAN")
    here = {
        "mamba_ssm": device.type == "cuda" and find_spec("mamba_ssm") is not None,
        "fused": device.type == "cpu" and asked != "torch" and kernel() is not None,
        "torch": True,
    }
    if asked and not here.get(asked):
        raise BadInput(
            f"MOBTK_SCAN={asked} cannot be had on {device.type}; here are {', '.join(name for name in here if here[name])}"
        )
    return asked or next(name for name in IMPLEMENTATIONS if here[name])


_counts: list[list[int]] = []
OPERATIONS = 9
"""Of a step, a channel and a number of the state, as Mamba's authors count them."""


@contextmanager
def counted() -> Iterator[list[int]]:
    """The operations of each scan inside, which no counter of torch sees."""
    counts: list[int] = []
    _counts.append(counts)
    try:
        yield counts
    finally:
        _counts.remove(counts)


def selective_scan(
    u: Float[Tensor, "B L D"],
    delta: Float[Tensor, "B L D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B L N"],
    C: Float[Tensor, "B L N"],
    h: Float[Tensor, "B D N"] | None = None,
    skip: Float[Tensor, "D"] | None = None,
    gate: Float[Tensor, "B L D"] | None = None,
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D N"]]:
    """Run ``h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t`` and read ``y_t = (C_t h_t + skip u_t) silu(gate_t)``.

    Gu and Dao 2023 (https://arxiv.org/abs/2312.00752), algorithm 2 with the zero-order hold of ``A`` and the Euler
    step of ``B``. Here ``D`` is the inner width and ``N`` the state size. In float32 whatever comes in. Memory for
    the backward pass is at most one state every ``CHUNK`` steps (in the kernel
    of channels rounded up to 16); the states between are computed again. See
    :func:`implementation` for who does it; all agree.

    Args:
        u: inputs.
        delta: step sizes, positive.
        A: decay rates, negative.
        B: input weights.
        C: output weights.
        h: the state before the first step; zero if not given.
        skip: the ``D`` of the paper: what of an input goes straight to its output; nothing if not given.
        gate: outputs are multiplied by the SiLU of it, if given.

    Returns:
        the outputs ``y`` and the state after the last step.
    """
    for counts in _counts:
        counts.append(OPERATIONS * u.numel() * A.shape[1])
    how = implementation(u.device)
    if how == "mamba_ssm" and h is not None:  # it knows no state before the first step
        how = "torch"
    if h is None:
        h = u.new_zeros(u.shape[0], u.shape[2], A.shape[1], dtype=torch.float32)
    ways = {"fused": fused_scan, "mamba_ssm": _mamba_ssm_scan, "torch": torch_scan}
    with torch.autocast(u.device.type, enabled=False):
        extras = (None if x is None else x.float() for x in (skip, gate))
        return ways[how](u.float(), delta.float(), A.float(), B.float(), C.float(), h.float(), *extras)


def torch_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, skip: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`selective_scan`; in torch alone, with a backward pass by hand."""
    y, last = _SelectiveScan.apply(u, delta, A, B, C, h)
    if skip is not None:
        y = torch.addcmul(y, skip, u)
    return y if gate is None else y * F.silu(gate), last


def _mamba_ssm_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, skip: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of the authors of Mamba, which has channels before steps and no gradient to the last state."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    turned = [None if x is None else x.transpose(1, 2).contiguous() for x in (u, delta, B, C, gate)]
    y, last = selective_scan_fn(turned[0], turned[1], A, turned[2], turned[3], skip, turned[4], return_last_state=True)
    return y.transpose(1, 2), last


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
