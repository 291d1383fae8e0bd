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
# # 4. The schedule
#
# Every model of sequences here decides tokens in groups: group $k$ in one pass, given the groups before it. The list of
# group lengths is the **schedule**, and it is the whole difference between the families. One line each:

# %%
import time

import matplotlib.pyplot as plt
import torch
from course import WORK, city, finish

import mobtk
from mobtk import Schedule

families = {
    "step by step": Schedule.autoregressive(24),
    "coarse to fine": Schedule.coarse_to_fine([1, 3, 6, 24], 24),
    "masked": Schedule.masked([False] * 24, passes=4),
}
for name, schedule in families.items():
    print(f"{name:<15} {schedule.n_tokens} tokens in {schedule.n_groups} passes: {schedule.lengths}")

# %% [markdown]
# From the schedule follow the attention mask (a token may look at its own group and at earlier ones), the training pass,
# the loop that draws and the cache. Below, the masks: dark where the token of a row may look.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
for ax, (name, schedule) in zip(axes, families.items(), strict=True):
    ax.imshow(schedule.mask(), cmap="Blues", vmax=1.4)
    ax.set(title=f"{name}, {schedule.n_groups} passes", xlabel="may look at token", xticks=[], yticks=[])
axes[0].set_ylabel("token")
figure.tight_layout()

# %% [markdown]
# Now three models of a week of hours with the same backbone. What differs is the tokenizer, because it declares the
# schedule.

# %%
data, backbone = city(1000).path, {"name": "transformer", "options": {"depth": 2, "heads": 2}}
one_line = {
    "step by step": {"tokenizer": "cells"},
    "coarse to fine": {"tokenizer": {"name": "rvq", "options": {"lengths": [1, 7, 28, 168], "codes": 128, "code_width": 2,
                                                                  "depth": 0}}},
    "masked": {"tokenizer": {"name": "cells", "options": {"passes": 8}}},
}  # fmt: skip
small = {"width": 32, "backbone": backbone, "training.precision": "float32", "training.tokenizer.epochs": 4,
         "training.generator.epochs": 4, "training.generator.lr": 5e-3}  # fmt: skip
runs = {}
for name, line in one_line.items():
    runs[name] = mobtk.build(
        "default", WORK / "chapter-4" / name.replace(" ", "-"), data=data, changes=small | line, replace=True
    )
    mobtk.train(runs[name])

# %% [markdown]
# What a week costs, and how likely a held-out week is: nats are logarithms of probability, the fewer the better. (Nats of
# codes and of cells are not the same measure, since codes lose something; see chapter 7.)

# %%
seconds = {}
for name, run in runs.items():
    model, traits = run.model().eval(), torch.from_numpy(run.dataset().traits(run.recipe.traits)[:1])
    model.generate(traits, 1)
    began = time.process_time()
    for _ in range(5):
        model.generate(traits, 1)
    seconds[name] = (time.process_time() - began) / 5
    last = [line for line in run.history() if line["stage"] == "generator"][-1]
    schedule = model.tokenizer.schedule
    print(f"{name:<15} {schedule.n_groups:3d} passes, {1000 * seconds[name]:5.0f} ms a week, "
          f"{last['valid_loss'] * schedule.n_tokens:5.0f} nats a held-out week")  # fmt: skip

# %% [markdown]
# One at a time, fewer passes are faster, though coarse to fine decides more tokens. In large batches arithmetic counts,
# not passes, and step by step catches up (`mobtk experiment run mstar/speed`).
#
# **Quick check.** *Does the number of scales matter?* On the city (20,000 weeks) hardly, from two scales on; with one,
# all 168 hours at once, weeks are three times as far off: hours decided at once cannot agree
# ([results](../results/mstar.md); `mobtk experiment run mstar/scales` asks it anew).
#
# **Exercise 4.** Write `doubling(steps)`: a masked schedule whose every pass decides as many steps as all passes before it
# together.

# %%
finish(
    seconds["step by step"] / seconds["coarse to fine"], "times as fast, one week at a time: 4 passes against 168", figure
)
