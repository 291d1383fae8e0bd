"""Answers to the exercises. There are others; what counts is that ``check.py`` is content."""

import numpy as np
import torch

from mobtk import Schedule
from mobtk.contracts import Backbone


def median_speed(lat, lon, seconds):
    """1. Haversine over time."""
    phi, lam = np.radians(lat), np.radians(lon)
    a = np.sin(np.diff(phi) / 2) ** 2 + np.cos(phi[1:]) * np.cos(phi[:-1]) * np.sin(np.diff(lam) / 2) ** 2
    return np.median(2 * 6371.0 * np.arcsin(np.sqrt(a)) / np.diff(seconds) * 3600)


def constant_velocity(time, place, when):
    """2. The last velocity times the time since the last point."""
    velocity = (place[-1] - place[-2]) / (time[-1] - time[-2])
    return place[-1] + (np.asarray(when) - time[-1])[:, None] * velocity


def straight_through(x, chosen):
    """3. What is added to ``x`` has no gradient."""
    return x + (chosen - x).detach()


def doubling(steps):
    """4. Halve the gaps."""
    groups, gap = [[0]], steps
    while gap > 1:
        groups.append(list(range(gap // 2, steps, gap)))
        gap //= 2
    return Schedule(tuple(map(len, groups)), tuple(float(t) for group in groups for t in group))


def growth(errors):
    """5. The slope of a line through logarithms."""
    return np.polyfit(np.log(np.arange(1, len(errors) + 1)), np.log(errors), 1)[0]


def leaks(model, steps, width):
    """6. Change the last input; every earlier output must stay. Then the last two, and so on."""
    x = torch.randn(1, steps, width)
    with torch.no_grad():
        before = model(x)
        for j in range(1, steps):
            other = x.clone()
            other[:, j:] += torch.randn(1, steps - j, width)
            if (model(other) - before)[:, :j].abs().max() > 1e-5:
                return True
    return False


def residual_codes(x, books):
    """7. Choose, subtract, go on."""
    rest, codes = np.array(x, float), []
    for book in books:
        codes.append(np.linalg.norm(rest[:, None] - book[None], axis=-1).argmin(1))
        rest = rest - book[codes[-1]]
    return np.stack(codes, 1)


def pairs(lengths):
    """8. Each token of a group looks at all tokens up to the end of its group."""
    return int((np.cumsum(lengths) * np.array(lengths)).sum())


def scan(a, b):
    """9. After round ``r`` each place holds the composition of the ``2 ** r`` steps that end there."""
    far = 1
    while far < len(a):
        b = torch.cat([b[:far], b[far:] + a[far:] * b[:-far]])
        a = torch.cat([a[:far], a[far:] * a[:-far]])
        far *= 2
    return b


def balance(probabilities, chosen):
    """10. Fedus et al. 2021, equation 4."""
    experts = probabilities.shape[-1]
    share = torch.bincount(chosen, minlength=experts) / len(chosen)
    return experts * (share * probabilities.mean(0)).sum()


def auc(members, outsiders):
    """11. All pairs."""
    gap = np.asarray(members)[:, None] - np.asarray(outsiders)[None, :]
    return (gap > 0).mean() + (gap == 0).mean() / 2


class Mean(Backbone):
    """12. The mean over all tokens of its own group and of earlier ones, which is all that has to be remembered."""

    uses_condition = False

    def __init__(self, width):
        super().__init__()

    def forward(self, x, schedule, cond=None, state=None):
        """Group by group, with a running sum."""
        state = state if state is not None else self.new_state(len(x), schedule)
        out, at = [], 0
        while at < x.shape[1]:
            group = x[:, at : at + schedule.lengths[state["group"]]]
            state["sum"] = state["sum"] + group.sum(1, keepdim=True)
            state["seen"] += group.shape[1]
            state["group"] += 1
            out.append(group + state["sum"] / state["seen"])
            at += group.shape[1]
        return torch.cat(out, 1)

    def new_state(self, batch, schedule):
        """The sum so far, of how many tokens, of how many groups."""
        return {"sum": 0.0, "seen": 0, "group": 0}
