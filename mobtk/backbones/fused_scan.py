"""The selective scan as a C++ kernel, compiled on first use where there is a compiler, called without torch's own ABI."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mobtk.errors import MobtkError, first_line
from mobtk.storage import new_file

log = logging.getLogger("mobtk")

SOURCE = Path(__file__).with_name("fused_scan.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
"""Not ``-ffast-math``: it would take the rounding trick of the kernel's exponential for nothing."""


def fused_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, skip: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`mobtk.backbones.selective_scan.selective_scan`; float32 on the processor only."""
    tensors = (u, delta, A, B, C, h, skip, gate)
    (batch, steps, channels), states = u.shape, A.shape[-1]
    narrow, like_u = (batch, steps, states), (batch, steps, channels)
    wanted = (like_u, like_u, (channels, states), narrow, narrow, (batch, channels, states), (channels,), like_u)
    for tensor, shape in zip(tensors, wanted, strict=True):  # the kernel would read beyond its end
        if tensor is not None and (tensor.shape != shape or tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise ValueError(
                f"a scan got {tensor.dtype} {tuple(tensor.shape)} where it wants float32 {shape} in main memory"
            )
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    y, last = _FusedScan.apply(keep, *tensors)
    return y, last


@cache
def kernel() -> ctypes.CDLL | None:
    """The compiled kernel, or ``None``, after one line that says why, where it cannot be had."""
    try:
        return _load(_compiled())
    except (OSError, subprocess.SubprocessError, MobtkError) as error:
        told = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
        log.warning(
            "the fused scan is not to be had (%s); the one in torch takes its place", told[:200] or first_line(error)
        )
        return None


def _compiled() -> Path:
    """The shared library for this source, compiler and processor; compiled once and kept in the user's cache."""
    compiler = shutil.which(os.environ.get("CXX", "")) or next(
        filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None
    )
    if compiler is None:
        raise MobtkError("no C++ compiler is installed")
    made_of = (SOURCE.read_text(), compiler, *FLAGS, platform.machine(), _processor())
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    library = platformdirs.user_cache_path("mobtk") / f"fused-scan-{key}.so"
    if not library.exists():
        log.info("compiling the fused scan, once: %s", library)
        with new_file(library) as draft:
            for openmp in (("-fopenmp",), ()):
                command = [compiler, *FLAGS, *openmp, str(SOURCE), "-o", str(draft)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=300)
                if done.returncode == 0:
                    break
            done.check_returncode()
    return library


def _processor() -> str:
    """What the processor can do: a cache may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _load(library: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(library))
    number, address = ctypes.c_int64, ctypes.c_void_p
    found.mobtk_scan_kept.argtypes = [number] * 4
    found.mobtk_scan_kept.restype = number
    found.mobtk_scan_forward.argtypes = [number] * 4 + [address] * 8 + [number] * 2 + [address] * 3 + [ctypes.c_int]
    found.mobtk_scan_forward.restype = None
    found.mobtk_scan_backward.argtypes = [number] * 4 + [address] * 7 + [number] * 2 + [address] * 11 + [ctypes.c_int]
    found.mobtk_scan_backward.restype = None
    return found


class _FusedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keep: bool, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        library = kernel()
        assert library is not None
        u, delta, A, B, C, h, skip, gate = tensors
        u, delta, A, h, skip = (None if t is None else t.contiguous() for t in (u, delta, A, h, skip))
        assert u is not None and A is not None and B is not None and C is not None and h is not None
        (B, C), narrow = _rows(B, C)
        (gate,), row = _rows(gate)
        sizes = (*u.shape, A.shape[1])
        y, last = torch.empty_like(u), torch.empty_like(h)
        kept = u.new_empty(library.mobtk_scan_kept(*sizes) if keep else 0)
        read = [_at(t) for t in (u, delta, A, B, C, h, skip, gate)]
        library.mobtk_scan_forward(
            *sizes, *read, row, narrow, _at(y), _at(last), _at(kept) if keep else None, torch.get_num_threads()
        )
        ctx.rows = row, narrow
        ctx.save_for_backward(u, delta, A, B, C, skip, gate, kept)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        library = kernel()
        assert library is not None
        u, delta, A, B, C, skip, gate, kept = ctx.saved_tensors
        dy, dlast = dy.contiguous(), dlast.contiguous()
        du, ddelta, dh = (torch.empty_like(x) for x in (u, delta, dlast))
        dA, dB, dC = (x.new_zeros(x.shape) for x in (A, B, C))
        dskip = None if skip is None else torch.zeros_like(skip)
        dgate = None if gate is None else torch.empty_like(u)
        read = [_at(t) for t in (u, delta, A, B, C, skip, gate)]
        rest = [_at(t) for t in (kept, dy, dlast, du, ddelta, dA, dB, dC, dh, dskip, dgate)]
        library.mobtk_scan_backward(*u.shape, A.shape[1], *read, *ctx.rows, *rest, torch.get_num_threads())
        return None, du, ddelta, dA, dB, dC, dh, dskip, dgate


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _rows(*tensors: Tensor | None) -> tuple[tuple[Tensor | None, ...], int]:
    """Tensors whose rows are equally far apart, and how far: as they are, where they are parts of something wider."""
    given = [t for t in tensors if t is not None]
    if not given:
        return tensors, 0
    strides, (_, steps, width) = {t.stride() for t in given}, given[0].shape
    batch, row, element = given[0].stride()
    if len(strides) == 1 and element == 1 and row >= width and batch == row * steps:
        return tensors, row
    return tuple(None if t is None else t.contiguous() for t in tensors), width
