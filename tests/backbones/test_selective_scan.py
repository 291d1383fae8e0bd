import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mobtk.backbones import fused_scan
from mobtk.backbones.selective_scan import CHUNK, IMPLEMENTATIONS, implementation, selective_scan
from mobtk.errors import BadInput


def _inputs(batch, steps, channels, states, seed=0):
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random)

    u, delta = draw(batch, steps, channels), F.softplus(draw(batch, steps, channels) - 2)
    A, B, C = -F.softplus(draw(channels, states)), draw(batch, steps, states), draw(batch, steps, states)
    wide = draw(batch, steps, 2 * channels)
    inputs = (u, delta, A, B, C, draw(batch, channels, states), draw(channels), wide)
    return [x.requires_grad_() for x in inputs]


def _scan(u, delta, A, B, C, h, skip, wide):
    """The gate is the second half of something wider, as in Mamba."""
    return selective_scan(u, delta, A, B, C, h, skip, wide.chunk(2, -1)[1])


def _by_definition(*inputs):
    """Step by step, with autograd through every state, in float64."""
    u, delta, A, B, C, h, skip, wide = (x.double() for x in inputs)
    outputs = []
    for t in range(u.shape[1]):
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
        outputs.append((h * C[:, t, None]).sum(-1) + skip * u[:, t])
    return torch.stack(outputs, 1) * F.silu(wide.chunk(2, -1)[1]), h


def _values_and_gradients(scan, inputs):
    y, last = scan(*inputs)
    random = torch.Generator().manual_seed(1)
    weigh = [torch.randn(x.shape, generator=random) for x in (y, last)]
    loss = (y * weigh[0]).sum() + (last * weigh[1]).sum()
    return [y.detach(), last.detach(), *torch.autograd.grad(loss, inputs)]


needs_kernel = pytest.mark.skipif(fused_scan.kernel() is None, reason="no C++ compiler here")
on_the_processor = pytest.mark.parametrize("how", ["torch", pytest.param("fused", marks=needs_kernel)])


@on_the_processor
@given(
    batch=st.integers(1, 4), steps=st.integers(1, 50), channels=st.integers(1, 40), states=st.integers(1, 20),
    seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_every_implementation_scans_by_the_definition(how, batch, steps, channels, states, seed):
    inputs = _inputs(batch, steps, channels, states, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBTK_SCAN", how)
        found = _values_and_gradients(_scan, inputs)
    for a, b in zip(found, _values_and_gradients(_by_definition, inputs), strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=2e-4, atol=2e-4)


@on_the_processor
def test_what_is_kept_for_the_backward_pass_is_a_state_every_few_steps(how, monkeypatch):
    monkeypatch.setenv("MOBTK_SCAN", how)
    batch, steps, channels, states = 2, 8 * CHUNK, 32, 16
    inputs, saved = _inputs(batch, steps, channels, states), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        selective_scan(*inputs[:6])
    kept = sum(saved) - sum(x.numel() for x in inputs[:5])
    assert 0 < kept <= batch * channels * states * steps // CHUNK


@needs_kernel
@pytest.mark.parametrize("states", [16, 5])
def test_the_kernel_shares_its_work_among_threads(states):
    inputs = _inputs(5, 40, 24, states)
    alone = _values_and_gradients(_scan, inputs)
    torch.set_num_threads(3)
    together, again = (_values_and_gradients(_scan, inputs) for _ in range(2))
    torch.set_num_threads(1)
    for a, b, c in zip(alone, together, again, strict=True):
        torch.testing.assert_close(a, b)
        assert torch.equal(b, c)


def test_strong_decay_and_long_steps_stay_finite():
    u, delta, A, *rest = _inputs(2, 8, 3, 16)
    for x in _values_and_gradients(_scan, [u, delta * 1e4, A * 1e4, *rest]):
        assert x.isfinite().all()


@needs_kernel
def test_the_kernel_reads_no_further_than_its_inputs():
    inputs = _inputs(2, 10, 4, 16)
    with pytest.raises(ValueError, match="a scan got torch.float32 .2, 9, 16. where it wants float32 .2, 10, 16."):
        fused_scan.fused_scan(*inputs[:3], inputs[3][:, :9], *inputs[4:7], None)
    u, delta, A, B, C, h = _inputs(4, 1, 3, 16)[:6]
    odd = [x.detach().reshape(1, 4, 16).transpose(0, 1) for x in (B, C)]  # one step, rows far apart
    assert odd[0].stride() != B.stride()
    torch.testing.assert_close(selective_scan(u, delta, A, *odd, h)[0], selective_scan(u, delta, A, B, C, h)[0])


def test_skip_and_gate_may_be_left_out():
    inputs = _inputs(2, 20, 5, 16)[:6]
    plain = selective_scan(*inputs)[0]
    skipped = selective_scan(*inputs, skip=torch.ones(5))[0]
    gated = selective_scan(*inputs, gate=torch.full((2, 20, 5), 3.0))[0]
    torch.testing.assert_close(skipped, plain + inputs[0])
    torch.testing.assert_close(gated, plain * F.silu(torch.tensor(3.0)))


def test_a_processor_without_a_compiler_uses_torch(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(fused_scan.platformdirs, "user_cache_path", lambda name: tmp_path)
    fused_scan.kernel.cache_clear()
    try:
        assert implementation() == "torch"
        assert caplog.messages == [
            "the fused scan is not to be had (no C++ compiler is installed); the one in torch takes its place"
        ]
    finally:
        fused_scan.kernel.cache_clear()


def test_a_compiler_that_fails_is_told_in_a_line(monkeypatch, tmp_path, caplog):
    def fail(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "fatal error: no such instruction\n")

    monkeypatch.setattr(fused_scan.shutil, "which", lambda name: "/usr/bin/g++")
    monkeypatch.setattr(fused_scan.subprocess, "run", fail)
    monkeypatch.setattr(fused_scan.platformdirs, "user_cache_path", lambda name: tmp_path)
    fused_scan.kernel.cache_clear()
    try:
        assert fused_scan.kernel() is None
        assert "no such instruction" in caplog.messages[-1]
        assert list(tmp_path.iterdir()) == []
    finally:
        fused_scan.kernel.cache_clear()


@pytest.mark.parametrize("asked", ["mamba_ssm", "fast"])
def test_an_implementation_that_is_not_here_is_refused(monkeypatch, asked):
    monkeypatch.setenv("MOBTK_SCAN", asked)
    with pytest.raises(BadInput, match=f"MOBTK_SCAN={asked} cannot be had on cpu; here are "):
        implementation()


def test_the_one_asked_for_is_used(monkeypatch):
    monkeypatch.setenv("MOBTK_SCAN", "torch")
    assert implementation() == "torch"
    assert IMPLEMENTATIONS[-1] == "torch"
