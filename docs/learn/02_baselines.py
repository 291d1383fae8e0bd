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
# # 2. Baselines first
#
# A model is only as good as what it is better than. For the next minute of a walk three lines of arithmetic are hard to
# beat: stay where you are, go on as you went, or, where the end is known, go straight there.

# %%
import matplotlib.pyplot as plt
import numpy as np
from course import BLUE, GREEN, GREY, finish, metres, walks

AHEAD = 12  # points of 5 s: a minute
found = walks()
test = [metres(found[row]) for row in found.rows("test")]

# %% [markdown]
# **ADE**, the average displacement error, is the mean distance between what was told and what was true over all points
# ahead; **FDE** the distance at the last one. Both in metres.


# %%
def stay_put(time, place, known):
    return np.repeat(place[known - 1 : known], len(place) - known, axis=0)


def constant_velocity(time, place, known):
    velocity = (place[known - 1] - place[known - 2]) / (time[known - 1] - time[known - 2])
    return place[known - 1] + (time[known:] - time[known - 1])[:, None] * velocity


def interpolation(time, place, known):  # knows the last point, too: the fair rival of a model that fills gaps
    share = (time[known:] - time[known - 1]) / (time[-1] - time[known - 1])
    return place[known - 1] + share[:, None] * (place[-1] - place[known - 1])


def errors(tell):
    missed = []
    for time, place in test:
        known = len(place) - AHEAD
        missed.append(np.linalg.norm(tell(time, place, known) - place[known:], axis=1))
    return np.mean(missed, axis=0)


by_step = {tell.__name__: errors(tell) for tell in (stay_put, constant_velocity, interpolation)}
for name, error in by_step.items():
    print(f"{name:<18} ADE {error.mean():6.1f} m   FDE {error[-1]:6.1f} m")

# %% [markdown]
# The same from mobtk, on the same points: `mobtk evaluate RUN --mask last` prints them beside every model, with the
# **skill**, `1 - error / error of the best baseline`.

# %%
figure, ax = plt.subplots(figsize=(6.4, 3.4))
for (name, error), colour in zip(by_step.items(), (GREY, BLUE, GREEN), strict=True):
    ax.plot(np.arange(1, AHEAD + 1) * 5, error, marker="o", markersize=3, color=colour, label=name.replace("_", " "))
ax.set(xlabel="seconds ahead", ylabel="metres off, mean over test walks", ylim=(0, None))
ax.legend(frameon=False)

# %% [markdown]
# **Quick check.** *The tutorial's trained model scores .0327 on its own measure. Good?* Repeating the last step scores
# .0325: it learned to copy. Without the baseline nobody could tell.
#
# **Exercise 2.** Write `constant_velocity(time, place, when)` for any number of known points and moments.

# %%
finish(by_step["constant_velocity"].mean(), "m: ADE of constant velocity over a minute, the figure to beat", figure)
