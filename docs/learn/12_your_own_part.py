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
# # 12. Write your own part
#
# A part is a class that signs a contract, a plugin is a file or a package with one function that gives it a name, and laws
# say whether it keeps its promises before anything is trained. This chapter's part is `fading.py` beside it: a backbone of
# 15 lines.

# %%
import matplotlib.pyplot as plt
from course import BLUE, HERE, ORANGE, WORK, city, finish

import mobtk
from mobtk.plugins import loaded, registry
from mobtk.testing import check_parts

print((HERE / "fading.py").read_text().split("\n\n\n")[1])

# %% [markdown]
# On the command line: `mobtk --plugin docs/learn/fading.py plugins check fading`. The same here:

# %%
if not any(entry.full_name == "fading.fading" for entry in registry()):
    loaded().add_file(HERE / "fading.py")
verdicts = check_parts("fading")
broken = [v for v in verdicts if v.problem]
print(
    f"{len(verdicts) - len(broken)} of {len(verdicts)} laws hold",
    *[f"broken: {v.law} {v.problem}" for v in broken],
    sep="\n",
)

# %% [markdown]
# From here on it goes wherever a backbone goes, in all three families: `mobtk --plugin ... build --backbone fading`.

# %%
small = {"width": 32, "training.precision": "float32", "training.generator.epochs": 4, "training.generator.lr": 2e-2}
nats = {}
for backbone in ("mamba", "fading"):
    changes = small | {"tokenizer": "cells", "backbone": {"name": backbone, "options": {"depth": 2}}}
    run = mobtk.build("default", WORK / "chapter-12" / backbone, data=city(1000).path, changes=changes, replace=True)
    nats[backbone] = [168 * line["valid_loss"] for line in mobtk.train(run).history() if line["stage"] == "generator"]
    size = sum(p.numel() for p in run.model().backbone.parameters())
    print(f"{backbone:<12} {size:6,d} parameters, {nats[backbone][-1]:4.0f} nats a held-out week")

# %%
figure, ax = plt.subplots(figsize=(6.4, 3.2))
for (name, values), colour in zip(nats.items(), (ORANGE, BLUE), strict=True):
    ax.plot(range(1, len(values) + 1), values, marker="o", color=colour, label=name)
ax.set(xlabel="pass over 500 weeks", ylabel="nats a held-out week")
ax.set_xticks(range(1, 5))
ax.legend(frameon=False)

# %% [markdown]
# **Quick check.** *Is one better than the other?* Not by two trainings of different size: `mobtk compare --vary
# backbone=mamba,fading --match params --seeds 3`. To ship it: `mobtk plugins new mine --backbone`, and [write a part in
# ten minutes](../howto/first-part.md).
#
# **Exercise 12.** Write `Mean(Backbone)`: each token plus the mean over all tokens of its own group and earlier ones.

# %%
finish(len(verdicts) - len(broken), f"of {len(verdicts)} laws are kept by a backbone of one file", figure)
