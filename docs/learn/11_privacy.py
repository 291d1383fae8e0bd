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
# # 11. A privacy attack on one's own model
#
# A generator of people may remember people. The simplest attack: who has the model asks how likely it finds a week; if it
# finds the weeks it learned from likelier than others of the same kind, it gives away who they were. **AUC** is the chance
# that a member's week looks likelier than an outsider's: .5 is guessing, 1 is certainty.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from course import BLUE, ORANGE, WORK, city, finish

import mobtk
from mobtk.audit import audit

backbone = {"name": "transformer", "options": {"depth": 2, "heads": 2}}
small = {"tokenizer": "cells", "traits": [], "width": 48, "backbone": backbone,
         "training.precision": "float32", "training.generator.lr": 5e-3, "training.generator.patience": 1000}  # fmt: skip
runs = {}
for name, weeks, epochs in (("few weeks, many passes", 200, 40), ("many weeks, few passes", 8000, 1)):
    run = mobtk.build("default", WORK / "chapter-11" / name.replace(", ", "-").replace(" ", "-"), data=city(weeks).path,
                      changes=small | {"training.generator.epochs": epochs}, replace=True)  # fmt: skip
    runs[name] = mobtk.train(run)

# %% [markdown]
# The attack, by hand: the likelihood of each week under the model, members beside outsiders.


# %%
@torch.inference_mode()
def nats(run, split, most=400):
    data, model = run.dataset(), run.model().eval()
    rows = data.rows(split)[:most]
    tokens = model.tokenizer.encode(torch.from_numpy(data.cells[rows].astype(np.int64)))
    return model.token_losses(tokens).sum(1).numpy()


figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
auc = {}
for ax, (name, run) in zip(axes, runs.items(), strict=True):
    members, outsiders = nats(run, "train"), nats(run, "test")
    auc[name] = (members[:, None] < outsiders[None, :]).mean()
    print(f"{name:<24} a member looks likelier than an outsider in {auc[name]:.0%} of pairs")
    bins = np.linspace(0, np.quantile(np.concatenate([members, outsiders]), 0.98), 30)
    ax.hist(members, bins, alpha=0.6, density=True, color=BLUE, label="members")
    ax.hist(outsiders, bins, alpha=0.6, density=True, color=ORANGE, label="outsiders")
    ax.set(title=name, xlabel="nats of a week: the fewer, the likelier", yticks=[])
axes[0].legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# `mobtk audit` does this and more (copies, distances, canaries), with errors, and beside what outsiders themselves would
# score.

# %%
for name, run in runs.items():
    mobtk.generate(run, 40, replace=True)
    told = audit(run)["figures"]
    print(f"{name:<24} likelihood attack: AUC {told['likelihood_attack_auc']:.2f} ± {told['likelihood_attack_error']:.2f}")

# %% [markdown]
# **Quick check.** *Are synthetic data private because they are synthetic?* No: the left model passes every test of
# fidelity on people it knows by heart. More people, fewer passes, or training with differential privacy (`--set
# training.privacy.epsilon=8`) help; the audit says how much.
#
# **Exercise 11.** Write `auc(members, outsiders)` from two lists of scores, ties counting half.

# %%
finish(auc["few weeks, many passes"], "is the AUC of the attack on a model that learned by heart (.5 is guessing)", figure)
