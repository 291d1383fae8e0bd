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
# # 6. Causality is a test
#
# A model that may look at what it is asked for scores beautifully and is of no use. One does not argue about it, one
# tries: change a later input, and no earlier output may move. Here a backbone that keeps the promise, and one with the
# fault of the published tutorial, which normalised its inputs over the whole batch and all of its time.

# %%
import matplotlib.pyplot as plt
import torch
from course import finish

from mobtk import Schedule
from mobtk.backbones.gpt2 import GPT2

torch.manual_seed(0)
steps, width = 24, 16
schedule = Schedule.autoregressive(steps)
backbone = GPT2(width, depth=2, heads=2).eval()


def honest(x):
    return backbone(x, schedule)


def leaky(x):
    return backbone((x - x.mean((0, 1))) / x.std((0, 1)), schedule)


# %% [markdown]
# `moved[i, j]` is how far output `i` moves when input `j` changes. All that is above the diagonal is a look into the
# future.


# %%
@torch.no_grad()
def influence(model):
    x = torch.randn(1, steps, width)
    before = model(x)
    moved = torch.zeros(steps, steps)
    for j in range(steps):
        other = x.clone()
        other[:, j] += torch.randn(width)
        moved[:, j] = (model(other) - before).abs().amax((0, 2))
    return moved


found = {"honest": influence(honest), "normalised over time": influence(leaky)}
future = torch.ones(steps, steps).triu(1).bool()
for name, moved in found.items():
    print(f"{name:<22} an earlier output moves by up to {moved[future].max():.2g}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, (name, moved) in zip(axes, found.items(), strict=True):
    shown = ax.imshow(moved, cmap="viridis", vmin=0, vmax=1)
    ax.set(title=name, xlabel="input that changes", ylabel="output that moves")
figure.colorbar(shown, ax=axes, label="by how much")

# %% [markdown]
# In mobtk this is a **law**: every backbone and every tokenizer is held to it before anything is trained (`mobtk plugins
# check`), with the other traps of the same kind: padding that is looked at, answers that hang on the rest of the batch, a
# cache that differs from the full pass.
#
# **Quick check.** *Could one see the leak in a loss?* Only where one knows what is possible: of visits whose durations
# nothing foretells (1.69 nats), a leaking model tells -2.80 (`trajfm/leak`).
#
# **Exercise 6.** Write `leaks(model, steps, width)`: whether an earlier output moves.

# %%
finish(
    found["normalised over time"][future].max().item(),
    "by which earlier outputs move in the leaky model (honest: 0)",
    figure,
)
