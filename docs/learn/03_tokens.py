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
# # 3. What a token is
#
# A sequence model decides tokens. A position can be told as the **cell** it lies in, as a **change** from the last one, or
# as a **code**: the nearest of a few learned vectors. Each loses something; here is how much.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from course import BLUE, GREEN, ORANGE, finish, metres, walks
from sklearn.cluster import KMeans

found = walks()
train, test = ([metres(found[row])[1] for row in found.rows(split)] for split in ("train", "test"))


def lost(told):
    """Mean metres between walks as they were and as they are told."""
    return np.mean([np.linalg.norm(a - b, axis=1).mean() for a, b in zip(told, test, strict=True)])


# %% [markdown]
# **Cells.** A token is one of so many squares; what is lost depends on their size, and how many there are on how far
# people go.

# %%
far = max(np.abs(np.concatenate(train)).max(), np.abs(np.concatenate(test)).max())
cells = {}
for size in (400, 200, 100, 50):
    n = int(np.ceil(2 * far / size)) ** 2
    cells[np.log2(n)] = lost([(np.floor(place / size) + 0.5) * size for place in test])
    print(f"cells of {size:3d} m: {n:7,d} of them, {np.log2(n):4.1f} bits a token, {cells[np.log2(n)]:6.1f} m lost")

# %% [markdown]
# **Codes of changes.** A step is short wherever one is, so few codes do. Told step after step, errors add up: unless each
# code is for the change from where the *told* walk has come to, which sees the error and mends it. Remember this for
# chapter 7.


# %%
def told_by(codes, place, feedback):
    out = [place[0]]
    for i in range(1, len(place)):
        change = place[i] - (out[-1] if feedback else place[i - 1])
        out.append(out[-1] + codes[np.linalg.norm(codes - change, axis=1).argmin()])
    return np.array(out)


changes = np.concatenate([np.diff(place, axis=0) for place in train])
blind, seeing = {}, {}
for n in (16, 64, 256):
    codes = KMeans(n, n_init=1, random_state=0).fit(changes).cluster_centers_
    blind[np.log2(n)] = lost([told_by(codes, place, False) for place in test])
    seeing[np.log2(n)] = lost([told_by(codes, place, True) for place in test])
    print(f"{n:3d} codes: {np.log2(n):4.1f} bits a token, {blind[np.log2(n)]:6.1f} m lost blindly, "
          f"{seeing[np.log2(n)]:5.1f} m seeing")  # fmt: skip

# %% [markdown]
# **Straight-through gradients.** Codes are chosen by a nearest neighbour, and a choice has no slope: the encoder would
# learn nothing. The trick (van den Oord et al. 2017): go forward with the code, and send the gradient back as if nothing
# had happened.

# %%
book = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
x = torch.tensor([0.8, 0.6], requires_grad=True)
code = book[torch.cdist(x[None], book).argmin()]
print("code by itself: gradient", code.requires_grad)
through = x + (code - x).detach()
through.square().sum().backward()
print("straight through: value", through.tolist(), "gradient", x.grad.tolist())

# %%
figure, ax = plt.subplots(figsize=(6.4, 3.4))
for points, name, colour in (
    (cells, "cells", BLUE),
    (blind, "codes of changes, blind", ORANGE),
    (seeing, "codes, seeing", GREEN),
):
    ax.plot(list(points), list(points.values()), marker="o", color=colour, label=name)
ax.set(xlabel="bits a token", ylabel="metres lost, mean", yscale="log")
ax.legend(frameon=False)

# %% [markdown]
# **Quick check.** *Cells or numbers?* Numbers lose nothing, and a head over cells can tell several possible places where a
# mean of two roads lies in the field between. On the walks a regression is nearer in metres
# (`trajfm/continuous-vs-discrete`); never judge by accuracy alone, which hangs on the size of the cells.
#
# **Exercise 3.** Write `straight_through(x, chosen)`.

# %%
finish(seeing[8.0], "m lost by 256 codes, 8 bits a step, that see their own error", figure)
