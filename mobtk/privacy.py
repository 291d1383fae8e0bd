"""Training with differential privacy: the weights tell little of any one person, by a bound that is known.

Needs opacus: ``pip install 'mobtk[privacy]'``.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobtk.errors import BadInput
from mobtk.recipe import Privacy


class PrivateSteps:
    """DP-SGD (Abadi et al. 2016, https://arxiv.org/abs/1607.00133) by person, with opacus' optimizer and accountant.

    At each step every person takes part with the same chance, independently of others; the gradient of all of their
    sequences together is clipped, the clipped ones are summed, and noise is added. What is protected is therefore a whole
    person and not a week of theirs. Who takes part and the noise are seeded by the operating system and not from the
    recipe, which anybody could repeat; the noise is torch's, in floating point, without opacus' ``secure_mode``.

    The stage's ``clip`` is not used. A step keeps the gradients of all who take part: people a step times the size
    of the model.

    Args:
        optimizer: that takes the steps.
        people: ``(rows,)`` whose each training sequence is.
        batch: sequences a step on average.
        steps: how many steps there will be.
        privacy: the bound, and where gradients are clipped.

    Raises:
        BadInput: opacus is not installed, or no noise is enough for the bound.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, people: NDArray[Any], batch: int, steps: int, privacy: Privacy
    ) -> None:
        try:
            from opacus.accountants.utils import get_noise_multiplier
            from opacus.optimizers import DPOptimizer
        except ImportError:
            raise BadInput("training.privacy needs opacus; install it with: pip install 'mobtk[privacy]'") from None
        assert privacy.epsilon is not None
        self.names, self.person = np.unique(people, return_inverse=True)
        self.share, self.privacy = min(1.0, batch / len(people)), privacy
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that orders of RDP beyond those it tries might be tighter
                self.noise = get_noise_multiplier(
                    target_epsilon=privacy.epsilon, target_delta=privacy.delta, sample_rate=self.share, steps=steps,
                    accountant="rdp",
                )  # fmt: skip
        except ValueError:
            raise BadInput(
                f"no noise keeps epsilon={privacy.epsilon:g} at delta={privacy.delta:g}; allow a larger one"
            ) from None
        if privacy.delta >= 1 / len(self.names):
            raise BadInput(
                f"training.privacy.delta={privacy.delta:g} allows to give one of {len(self.names)} people away; take at "
                f"most {0.1 / len(self.names):.1g}"
            )
        self.settings = {"noise": self.noise, "share": self.share, "clip": privacy.clip, "delta": privacy.delta}
        secret = torch.Generator(optimizer.param_groups[0]["params"][0].device)
        secret.seed()
        self.optimizer = DPOptimizer(
            optimizer, noise_multiplier=self.noise, max_grad_norm=privacy.clip,
            expected_batch_size=max(1, round(self.share * len(self.names))), generator=secret,
        )  # fmt: skip
        self.random = np.random.default_rng()

    def step(self, rows: NDArray[np.int64], losses: Callable[[NDArray[np.int64]], Mapping[str, Tensor]]) -> dict[str, float]:
        """One step. ``rows`` are those that ``people`` are of, ``losses`` the terms of the loss of some of them.

        Returns:
            the mean of each term over the people who took part. It is not covered by the bound.
        """
        parameters: list[nn.Parameter] = [p for group in self.optimizer.param_groups for p in group["params"]]
        chosen = np.flatnonzero(self.random.random(len(self.names)) < self.share)
        gradients: list[list[Tensor]] = [[] for _ in parameters]
        sums: dict[str, float] = {}
        for person in chosen:
            terms = losses(rows[self.person == person])
            loss = torch.stack(list(terms.values())).sum()
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for kept, p, gradient in zip(gradients, parameters, found, strict=True):
                kept.append(torch.zeros_like(p) if gradient is None else gradient)
            for key, value in {"loss": loss, **terms}.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / len(chosen)
        for p, kept in zip(parameters, gradients, strict=True):
            p.grad_sample = torch.stack(kept) if kept else p.new_zeros((0, *p.shape))  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sums or {"loss": 0.0}

    def epsilon(self, steps: int) -> float:
        """What the bound is after so many steps."""
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        accountant.history = [(self.noise, self.share, steps)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(accountant.get_epsilon(self.privacy.delta))
