"""The schedule: in which groups a sequence is decided. The one idea that the rest hangs on.

Group ``k`` is decided in one pass, given groups ``< k``. From the list of group lengths alone follow the
attention mask, the teacher-forced training pass, the sampling loop and the size of a cache; so one backbone
and one loop serve autoregressive, coarse-to-fine and masked models alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The lengths of the groups in which tokens are decided, and the time each token stands for.

    Args:
        lengths: tokens in each group, in the order of decision.
        times: one number a token, in steps of the sequence: where in time the token stands (a token that
            covers several steps stands at their middle). Rotary positions read it. By default the running
            index ``0 .. L-1``.

    Raises:
        ValueError: no group, an empty group, or as many times as there are not tokens.
    """

    lengths: tuple[int, ...]
    times: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(int(n) for n in self.lengths))
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"a schedule needs groups of at least one token, not {self.lengths}")
        times = tuple(float(t) for t in self.times) or tuple(float(i) for i in range(sum(self.lengths)))
        if len(times) != sum(self.lengths):
            raise ValueError(f"{len(times)} times for {sum(self.lengths)} tokens")
        object.__setattr__(self, "times", times)

    @classmethod
    def autoregressive(cls, steps: int) -> "Schedule":
        """One step after the other: ``1, 1, ... 1``."""
        return cls((1,) * steps)

    @classmethod
    def coarse_to_fine(cls, lengths: Sequence[int], steps: int) -> "Schedule":
        """Scale after scale; token ``i`` of a scale of ``n`` stands at the middle of its ``steps / n`` steps."""
        return cls(tuple(lengths), tuple((i + 0.5) * steps / n - 0.5 for n in lengths for i in range(n)))

    @classmethod
    def masked(cls, known: Sequence[bool], passes: int = 1) -> "Schedule":
        """Known steps first, as one group; then the hidden ones in ``passes`` groups of about equal length.

        The tokens are permuted: ``times`` says which step each one is. Every ``passes``-th hidden step is of one group, so
        that each pass covers the whole sequence; and each pass stands midway between those before it (van der Corput's
        order: of eight, the first, fifth, third, seventh, ...), so that most steps are decided between decided ones.
        """
        seen = [t for t, k in enumerate(known) if k]
        hidden = [t for t, k in enumerate(known) if not k]
        bits = (passes - 1).bit_length()
        order = sorted(range(passes), key=lambda p: f"{p:0{bits}b}"[::-1])
        groups = [seen, *(hidden[p::passes] for p in order)]
        groups = [g for g in groups if g]
        return cls(tuple(len(g) for g in groups), tuple(float(t) for g in groups for t in g))

    @property
    def n_groups(self) -> int:
        """How many passes a generation takes."""
        return len(self.lengths)

    @cached_property
    def n_tokens(self) -> int:
        """``L``: tokens of one sequence, the sum of the lengths."""
        return sum(self.lengths)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Index of the first token of each group."""
        starts, at = [], 0
        for n in self.lengths:
            starts.append(at)
            at += n
        return tuple(starts)

    def group(self, k: int) -> slice:
        """Where the tokens of group ``k`` stand among the ``L``."""
        return slice(self.starts[k], self.starts[k] + self.lengths[k])

    def groups(self) -> Iterator[slice]:
        """The slices of all groups, in order."""
        return (self.group(k) for k in range(self.n_groups))

    @cached_property
    def is_autoregressive(self) -> bool:
        """Whether every group is a single token, so that the mask is the plain causal one."""
        return all(n == 1 for n in self.lengths)

    @property
    def family(self) -> str:
        """What models of such a schedule are called: autoregressive, coarse to fine, masked; or at once."""
        if self.is_autoregressive and list(self.times) == sorted(self.times):
            return "autoregressive"
        if self.n_groups == 1:
            return "at once"
        return "masked" if len(set(self.times)) == self.n_tokens == max(self.times) + 1 else "coarse to fine"

    def group_of(self) -> Int[Tensor, "L"]:
        """The group of each token."""
        return torch.repeat_interleave(torch.arange(self.n_groups), torch.tensor(self.lengths))

    def mask(self, device: torch.device | str = "cpu") -> Bool[Tensor, "L L"]:
        """True where the token of a row may look at the token of a column: its own group and earlier ones."""
        return _mask(self, torch.device(device))

    def time(self, device: torch.device | str = "cpu") -> Float[Tensor, "L"]:
        """``times`` as a tensor."""
        return _time(self, torch.device(device))


@lru_cache(maxsize=64)
def _mask(schedule: Schedule, device: torch.device) -> Tensor:
    group = schedule.group_of().to(device)
    return group[:, None] >= group[None, :]


@lru_cache(maxsize=64)
def _time(schedule: Schedule, device: torch.device) -> Tensor:
    return torch.tensor(schedule.times, device=device)
