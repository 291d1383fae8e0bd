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
# # 8. Block-wise masks and the cache
#
# Attention by hand, over any schedule, and then the same without doing anything twice: while a sequence is drawn, keys and
# values of what is decided never change, because nothing decided later may be looked at. So they are kept.

# %%
import time

import matplotlib.pyplot as plt
import torch
from course import BLUE, ORANGE, finish

from mobtk import Schedule
from mobtk.backbones.transformer import Transformer

torch.manual_seed(0)
schedule = Schedule.coarse_to_fine([1, 3, 6, 24], 24)


def attention(q, k, v, mask):
    score = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    return score.softmax(-1) @ v


q, k, v = torch.randn(3, 1, schedule.n_tokens, 8)
whole = attention(q, k, v, schedule.mask())
by_group = torch.cat([attention(q[:, g], k[:, : g.stop], v[:, : g.stop], torch.ones((), dtype=torch.bool))
                      for g in schedule.groups()], dim=1)  # fmt: skip
print(f"one mask over all, or group by group without any mask: {(whole - by_group).abs().max():.1e} apart")

# %% [markdown]
# That is all there is to it: within a group everything may be looked at, so a pass needs no mask, only what came before.
# mobtk's backbones keep that in a `state`, and a law holds them to it: one group at a time equals all at once.

# %%
backbone = Transformer(64, depth=2, heads=4, adaptive=False).eval()


@torch.inference_mode()
def with_cache(x, schedule):
    state = backbone.new_state(len(x), schedule)
    return torch.cat([backbone(x[:, g], schedule, None, state) for g in schedule.groups()], dim=1)


@torch.inference_mode()
def without(x, schedule):  # all so far, again and again, as most published code does
    out = []
    for g in schedule.groups():
        so_far = Schedule(schedule.lengths[: len(out) + 1], schedule.times[: g.stop])
        out.append(backbone(x[:, : g.stop], so_far)[:, g])
    return torch.cat(out, dim=1)


def seconds(way, x, schedule):
    way(x, schedule)
    began = time.process_time()
    way(x, schedule)
    return time.process_time() - began


cost = {"with a cache": [], "without": []}
lengths = (24, 48, 96, 168, 336)
for steps in lengths:
    hourly, x = Schedule.autoregressive(steps), torch.randn(4, steps, 64)
    cost["with a cache"].append(seconds(with_cache, x, hourly))
    cost["without"].append(seconds(without, x, hourly))
    apart = (with_cache(x, hourly) - without(x, hourly)).abs().max()
    print(f"{steps:3d} steps: {1000 * cost['with a cache'][-1]:5.0f} ms with, {1000 * cost['without'][-1]:5.0f} ms without, "
          f"{apart:.0e} apart")  # fmt: skip
coarse = Schedule.coarse_to_fine([1, 7, 28, 168], 168)
x = torch.randn(4, coarse.n_tokens, 64)
kept, anew = seconds(with_cache, x, coarse), seconds(without, x, coarse)
print(f"coarse to fine: {1000 * kept:.0f} ms with, {1000 * anew:.0f} ms without: with few passes there is little to keep")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
left.imshow(schedule.mask(), cmap="Blues", vmax=1.4)
for g in schedule.groups():
    left.axhline(g.stop - 0.5, color=ORANGE, linewidth=0.6)
left.set(title="the mask of 1, 3, 6, 24", xlabel="may look at token", ylabel="token")
for (name, values), colour in zip(cost.items(), (BLUE, ORANGE), strict=True):
    right.plot(lengths, [1000 * s for s in values], marker="o", color=colour, label=name)
right.set(xlabel="steps, one after the other", ylabel="ms for four sequences", xscale="log", yscale="log")
right.set_xticks(lengths, [str(n) for n in lengths])
right.minorticks_off()
right.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# **Quick check.** *Can every model be cached?* Only one whose past does not change: the tutorial's, which normalises over
# time, gives other answers with a cache than without (chapter 6 is why).
#
# **Exercise 8.** Write `pairs(lengths)`: how many pairs of tokens the mask of a schedule lets through.

# %%
finish(cost["without"][3] / cost["with a cache"][3], "times as fast with a cache, a week hour by hour", figure)
