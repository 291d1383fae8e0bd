# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9. State spaces: a scan by hand, then Mamba
#
# Attention keeps everything and looks through it again at each step. A state space keeps one state, which fades: $h_t =
# a_t h_{t-1} + b_t x_t$, read as $y_t = c_t h_t$. Time and memory are linear in length, and what is drawn next costs the
# same at any length.

# %%
import time

import matplotlib.pyplot as plt
import torch
from course import BLUE, GREEN, GREY, ORANGE, finish

from mobtk import Schedule
from mobtk.backbones.mamba import Mamba
from mobtk.backbones.selective_scan import implementation, selective_scan
from mobtk.backbones.transformer import Transformer

torch.manual_seed(0)


# %% [markdown]
# Mamba chooses at each step how long it lasts ($\Delta_t$, from the input): $a_t = e^{\Delta_t A}$ with $A < 0$. A long
# step forgets the past and takes in the present; a short one passes by and changes little. By hand, a loop:


# %%
def scan(u, delta, A, B, C):
    h, y = torch.zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[1]):
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        y.append((h * C[:, t, None, :]).sum(-1))
    return torch.stack(y, 1)


u, delta = torch.randn(2, 200, 16), torch.rand(2, 200, 16)
A, B, C = -torch.rand(16, 16) - 0.1, torch.randn(2, 200, 16), torch.randn(2, 200, 16)
apart = (scan(u, delta, A, B, C) - selective_scan(u, delta, A, B, C)[0]).abs().max()
print(f"by hand and mobtk's scan ({implementation()}): {apart:.1e} apart")

# %% [markdown]
# What is left of one input after some steps, for three lengths of step:

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for step, colour in ((0.01, BLUE), (0.1, GREEN), (1.0, ORANGE)):
    once = torch.zeros(1, 60, 1)
    once[0, 5] = 1.0
    ones = torch.ones(1, 60, 1)
    y = scan(once, step * ones, -torch.ones(1, 1), ones, ones)
    left.plot(y[0, :, 0] / y.max(), color=colour, label=f"$\\Delta$ = {step}")
left.set(xlabel="step", ylabel="what is left of an input at step 5")
left.legend(frameon=False)

# %% [markdown]
# And what length costs, beside attention (forward and backward, one processor):


# %%
def seconds(backbone, n):
    x, schedule = torch.randn(1, n, 64, requires_grad=True), Schedule.autoregressive(n)
    backbone(x, schedule).sum().backward()
    began = time.process_time()
    backbone(x, schedule).sum().backward()
    return time.process_time() - began


lengths = (256, 512, 1024, 2048, 4096)
cost = {"attention": [], "Mamba": []}
for n in lengths:
    cost["attention"].append(seconds(Transformer(64, depth=1, heads=4, adaptive=False), n))
    cost["Mamba"].append(seconds(Mamba(64, depth=1), n))
    print(f"{n:5d} steps: attention {1000 * cost['attention'][-1]:6.0f} ms, Mamba {1000 * cost['Mamba'][-1]:5.0f} ms")
for (name, values), colour in zip(cost.items(), (GREY, BLUE), strict=True):
    right.plot(lengths, [1000 * s for s in values], marker="o", color=colour, label=name)
right.set(xlabel="steps", ylabel="ms, forward and backward", xscale="log", yscale="log")
right.set_xticks(lengths, [str(n) for n in lengths])
right.minorticks_off()
right.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# **Quick check.** *Is a loop the best one can do?* States compose: two steps are one with $a = a_2 a_1$ and $b = a_2 b_1 +
# b_2$, so a scan can be done in $\log_2 L$ rounds. On a processor a fused loop is faster still (`mobtk bench scan`).
#
# **Exercise 9.** Write `scan(a, b)` for $h_t = a_t h_{t-1} + b_t$ without a loop over steps: in rounds, each twice as far.

# %%
ratio = (cost["attention"][-1] / cost["attention"][0]) / (cost["Mamba"][-1] / cost["Mamba"][0])
finish(ratio, "times as fast attention's cost grows as Mamba's, from 256 steps to 4096", figure)
