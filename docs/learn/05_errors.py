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
# # 5. Errors that feed on themselves
#
# A model that tells the next point reads its own points when it goes on: what it got wrong is what it reads next. A model
# that tells all points at once does not, but its points do not know of each other. Here one set of weights does both, so
# that nothing else differs.

# %%
import matplotlib.pyplot as plt
import numpy as np
from course import BLUE, GREY, ORANGE, WORK, finish, walks

import mobtk

AHEAD = 24  # two minutes
changes = {"complete.window": 72, "width": 48, "training.completer.epochs": 25,
           "complete.masks": [{"name": "last", "options": {"points": AHEAD}}]}  # fmt: skip
run = mobtk.build("completer", WORK / "chapter-5", data=walks().path, changes=changes, replace=True)
mobtk.train(run)

# %% [markdown]
# Step by step with the truth so far shows how well it tells one point; step by step on its own shows how errors pile up.

# %%
told = mobtk.evaluate_completer(run, masks=["last"], options={"last": {"points": AHEAD}})
by_step = {name: np.array(errors) for name, errors in told["by_step"]["last"].items()}
for name, errors in by_step.items():
    print(f"{name:<22} 5 s: {errors[0]:5.1f} m   60 s: {errors[11]:6.1f} m   120 s: {errors[-1]:6.1f} m")

# %%
figure, ax = plt.subplots(figsize=(6.4, 3.4))
seconds = 5 * np.arange(1, AHEAD + 1)
for name, colour, style in (
    ("model step by step", ORANGE, "-"),
    ("model at once", BLUE, "-"),
    ("constant velocity", GREY, "--"),
):
    ax.plot(seconds, by_step[name], color=colour, linestyle=style, label=name)
ax.plot(seconds, by_step["model step by step"][0] * np.arange(1, AHEAD + 1), color=ORANGE, linestyle=":",
        label="its first error, times the steps")  # fmt: skip
ax.set(xlabel="seconds ahead", ylabel="metres off, mean", ylim=(0, None))
ax.legend(frameon=False)

# %% [markdown]
# The dotted line is what errors would be if each step added as much as the first. Some errors grow faster by themselves,
# for people turn. The fair comparison is the same model at once, which never reads its own points: what lies between the
# two is what its own mistakes cost it. (After two minutes staying put is as near as any of them: how far is far enough?)
#
# **Quick check.** *Next step, or segments?* To fill a gap, learn to fill gaps: who learned segments of 15 % tells a
# hidden block some 60 m nearer than who learned next steps (`trajfm/objective`). *Do predictions shrink to the mean?* A
# path told by medians is about two fifths as long as a true one; single steps are not short (`trajfm/collapse`).
#
# **Exercise 5.** Write `growth(errors)`: the power of the number of steps with which errors grow.

# %%
far = by_step["model step by step"][-1] / by_step["model at once"][-1]
finish(far, "times as far off after two minutes, reading its own points, as the same model at once", figure)
