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
# # 10. Routers and experts, and how they collapse
#
# A mixture of experts has several networks, of which a router picks one for each sequence: more parameters at the same
# cost. The danger: an expert that is picked learns, so it is picked again, and in the end one does everything. Here that
# is provoked, and mended.

# %%
import matplotlib.pyplot as plt
import torch
from course import BLUE, GREEN, ORANGE, PINK, finish
from torch import nn
from torch.nn import functional as F

KINDS, WIDTH, EXPERTS = 4, 8, 4

# %% [markdown]
# Four kinds of sequences, each with a rule of its own that a linear expert can learn; no single expert can learn all four.

# %%
torch.manual_seed(0)
rules = torch.randn(KINDS, WIDTH, WIDTH) / WIDTH**0.5
looks = 1.5 * torch.randn(KINDS, WIDTH)


def batch(n=64):
    kind = torch.randint(KINDS, (n,))
    x = looks[kind] + torch.randn(n, WIDTH)
    return x, torch.einsum("nij,nj->ni", rules[kind], x), kind


def train(balance, seed=0, steps=600):
    torch.manual_seed(seed)
    score = nn.Linear(WIDTH, EXPERTS)
    with torch.no_grad():  # a router that begins with an opinion: expert 0 for everything
        score.weight.mul_(0.1)
        score.bias.copy_(torch.tensor([4.0, 0.0, 0.0, 0.0]))
    experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS))
    optimizer = torch.optim.SGD([*score.parameters(), *experts.parameters()], lr=0.1)
    shares, errors = [], []
    for _ in range(steps):
        x, y, _ = batch()
        p = score(x).softmax(-1)
        weight, best = p.max(-1)
        said = torch.stack([expert(x) for expert in experts], 1)[torch.arange(len(x)), best]
        said = weight[:, None] / weight[:, None].detach() * said  # the value of the expert, the gradient of the router
        share = F.one_hot(best, EXPERTS).float().mean(0)
        loss = F.mse_loss(said, y) + balance * EXPERTS * (share * p.mean(0)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append(share)
        errors.append(F.mse_loss(said, y).item())
    return torch.stack(shares), sum(errors[-50:]) / 50


# %% [markdown]
# The loss that keeps experts in balance (Fedus et al. 2021, equation 4): the number of experts times the sum over experts
# of the share of sequences they serve times their mean probability. It is 1 where all serve alike, and as much as the
# number of experts where one does everything.

# %%
found = {}
for name, balance in (("no balance", 0.0), ("balance 0.3", 0.3)):
    shares, error = train(balance)
    found[name] = shares
    print(
        f"{name:<12} the busiest expert serves {shares[-50:].mean(0).max():4.0%} of the sequences; squared error {error:.3f}"
    )

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for ax, (name, shares) in zip(axes, found.items(), strict=True):
    smooth = shares.unfold(0, 20, 20).mean(-1)
    ax.stackplot(20 * torch.arange(len(smooth)), 100 * smooth.T, colors=[BLUE, ORANGE, GREEN, PINK],
                 labels=[f"expert {e}" for e in range(EXPERTS)])  # fmt: skip
    ax.set(title=name, xlabel="step of training", xlim=(0, 580))
axes[0].set_ylabel("% of the sequences it serves")
axes[1].legend(frameon=False, bbox_to_anchor=(1, 1))
figure.tight_layout()

# %% [markdown]
# **Quick check.** *Why is a published router "essentially untrained"?* With one expert a sequence its weight,
# renormalised, is always 1: no gradient is left. Divide by the sum without its gradient, as above and in `mobtk.routers`,
# and the score learns. *Do experts by node or by window forecast better?* `mobtk experiment run stm3/routing`; whether
# planted regimes are found: `stm3/planted`.
#
# **Exercise 10.** Write `balance(probabilities, chosen)`: the loss above.

# %%
finish(
    100 * found["no balance"][-50:].mean(0).max().item(),
    "of 100 sequences go to one expert of four, without balance",
    figure,
)
