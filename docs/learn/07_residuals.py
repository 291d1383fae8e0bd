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
# # 7. Residual quantisation by hand
#
# Coarse to fine needs tokens that say first roughly and then exactly where a week goes. So: average the week to a few
# stretches, give each the nearest code, see what is missing, and say that with more and shorter stretches.

# %%
import matplotlib.pyplot as plt
import numpy as np
from course import BLUE, GREEN, GREY, ORANGE, city, finish
from sklearn.cluster import KMeans

data = city(1000)
mapper = data.mapper()
lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
east, north = (lon - lon.mean()) * 85.4, (lat - lat.mean()) * 111.0
xy = np.stack([east, north], -1)  # km
weeks = {split: xy[data.cells[data.rows(split)]] for split in ("train", "test")}
scales, codes = (1, 7, 28, 168), 64

# %% [markdown]
# The only two operations: averages over the hours of a token, and back by repeating.


# %%
def down(x, n):
    return x.reshape(len(x), n, -1, 2).mean(2)


def up(z):
    return np.repeat(z, 168 // z.shape[1], axis=1)


# %% [markdown]
# A codebook a scale, learned on what the scales before have left. With **feedback** that is measured against what was
# *told*, so a scale mends the errors of those before it; without, against what *would have been* told without any error,
# as in the published code.


# %%
def learn(x, feedback):
    books, told, ideal = [], np.zeros_like(x), np.zeros_like(x)
    for n in scales:
        rest = down(x - (told if feedback else ideal), n)
        book = KMeans(codes, n_init=1, random_state=0).fit(rest.reshape(-1, 2)[:20_000])
        books.append(book)
        told = told + up(book.cluster_centers_[book.predict(rest.reshape(-1, 2))].reshape(rest.shape))
        ideal = ideal + up(rest)
    return books


def tell(x, books, feedback):
    told, ideal, after = np.zeros_like(x), np.zeros_like(x), []
    for n, book in zip(scales, books, strict=True):
        rest = down(x - (told if feedback else ideal), n)
        told = told + up(book.cluster_centers_[book.predict(rest.reshape(-1, 2))].reshape(rest.shape))
        ideal = ideal + up(rest)
        after.append(told)
    return after


kept = {}
for name, feedback in (("with feedback", True), ("without", False)):
    after = tell(weeks["test"], learn(weeks["train"], feedback), feedback)
    kept[name] = [np.linalg.norm(told - weeks["test"], axis=-1).mean() for told in after]
    said = ", ".join(f"{n}: {k:.2f} km" for n, k in zip(scales, kept[name], strict=True))
    right = (np.linalg.norm(after[-1] - weeks["test"], axis=-1) < 0.5).mean()
    print(f"{name:<14} off after the scale of {said}; {right:.0%} of hours within half a cell")
    if feedback:
        shown = after

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(2.2, 1))
who = np.abs(np.diff(weeks["test"][..., 0], axis=1)).sum(1).argsort()[-len(weeks["test"]) // 4]
left.plot(weeks["test"][who, :, 0], color="black", linewidth=2.5, alpha=0.25, label="the week")
for told, n, colour in zip(shown, scales, (GREY, ORANGE, BLUE, GREEN), strict=True):
    left.plot(told[who, :, 0], color=colour, linewidth=1, label=f"after {n}")
left.set(xlabel="hour of the week", ylabel="km east", xticks=range(0, 169, 24))
left.legend(frameon=False, ncols=5, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
for name, colour in (("with feedback", GREEN), ("without", ORANGE)):
    right.plot([str(n) for n in scales], kept[name], marker="o", color=colour, label=name)
right.set(xlabel="tokens of the scale", ylabel="km off, mean")
right.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# **Quick check.** *Why do published codes decode few hours right?* Without feedback, errors of coarse scales are never
# seen again, and a codebook learned by gradient uses few of its codes: `mobtk experiment run mstar/reconstruction` and
# `mstar/codebook`. In `rvq` the codes are learned by moving averages, and dead ones are brought back.
#
# **Exercise 7.** Write `residual_codes(x, books)`: the code of each book for what the books before have left.

# %%
finish(kept["without"][-1] / kept["with feedback"][-1], "times as far off without feedback", figure)
