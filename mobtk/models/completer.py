"""The completer: tokens of points and a backbone put together, step by step or all at once."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mobtk.contracts import Backbone, Head, Paths, PointTokenizer, PointTokens, Rows, State
from mobtk.schedule import Schedule


@final
class Completer(nn.Module):
    """Foretells hidden places and moments of trajectories; one set of weights under two schedules.

    Step by step (a schedule of ones) each patch of points is told from those before it. At once (a single group) whatever is
    hidden is told from what is shown on both sides. Of a moment the heads tell the inverse hyperbolic sine: a step that
    takes a hundred times as long as expected is a number of five, not of a hundred.

    Args:
        tokenizer: points -> tokens.
        backbone: reads them.
    """

    def __init__(self, tokenizer: PointTokenizer, backbone: Backbone) -> None:
        super().__init__()
        self.tokenizer, self.backbone = tokenizer, backbone

    def losses(self, paths: Paths, onward: bool) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n"]]:
        """Negative log-likelihood of the place and of the moment of each point, in nats of its own unit."""
        tokens = self.tokens(paths, onward)
        hidden = self.tokenizer.apart(self._mixed(tokens, onward))
        place = (paths.place - tokens.place) / tokens.metres[..., None]
        time = (paths.time - tokens.time) / tokens.seconds
        of_place = self.tokenizer.place_head.loss(hidden, hidden, place.float())
        known = self.tokenizer.knowing(hidden, place.float())
        of_time = self.tokenizer.time_head.loss(known, known, time.asinh().float()[..., None])
        return of_place, of_time + 0.5 * time.square().log1p().float()  # as a density of the time itself

    def loss(self, paths: Paths, onward: bool) -> dict[str, Float[Tensor, ""]]:
        """Mean over the places and over the moments that are asked for, and what the backbone adds."""
        losses = self.losses(paths, onward)
        terms = {}
        for name, loss, asked in zip(("place", "time"), losses, self.asked(paths, onward), strict=True):
            terms[name] = torch.where(asked, loss, 0.0).sum() / asked.sum().clamp(min=1)
        if self.backbone.auxiliary_loss is not None:
            terms["experts"] = self.backbone.auxiliary_loss
        return terms

    def asked(self, paths: Paths, onward: bool) -> tuple[Bool[Tensor, "B n"], Bool[Tensor, "B n"]]:
        """Which places and which moments are foretold: step by step, every place but the first."""
        index = torch.arange(paths.time.shape[1], device=paths.time.device)
        there = (index < paths.lengths[:, None]) & (index > 0)
        return there & (torch.ones_like(there) if onward else paths.hidden_place), there & paths.hidden_time

    def tokens(self, paths: Paths, onward: bool) -> PointTokens:
        """What the backbone reads of whole trajectories."""
        if not onward:
            return self.tokenizer.at_once(paths)
        return self.tokenizer.onward(paths, 0, paths.time.shape[1] // self.tokenizer.patch, {})

    def _mixed(self, tokens: PointTokens, onward: bool) -> Float[Tensor, "B l D"]:
        n = tokens.inputs.shape[1]
        schedule = Schedule.autoregressive(n) if onward else Schedule((n,))
        return self._backbone(tokens, schedule, None)

    def _backbone(self, tokens: PointTokens, schedule: Schedule, state: State | None) -> Float[Tensor, "B l D"]:
        if not self.backbone.takes_rows:
            return self.backbone(tokens.inputs, schedule, None, state)
        rows = tokens.rows if state is None else Rows(times=tokens.rows.times, places=tokens.rows.places)
        return self.backbone(tokens.inputs, schedule, None, state, rows=rows)

    @torch.inference_mode()
    def next_points(self, paths: Paths) -> tuple[Float[Tensor, "B n 2"], Float[Tensor, "B n"]]:
        """Each place and moment as told from the true points before it, all in one pass."""
        tokens = self.tokens(paths, onward=True)
        return self._told(self.tokenizer.apart(self._mixed(tokens, onward=True)), tokens, 0.0, None)

    @torch.inference_mode()
    def at_once(
        self, paths: Paths, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "B n 2"], Float[Tensor, "B n"]]:
        """Places and moments, hidden ones foretold in one pass."""
        tokens = self.tokens(paths, onward=False)
        hidden = self.tokenizer.apart(self._mixed(tokens, onward=False))
        place, time = self._told(hidden, tokens, temperature, generator)
        asked_place, asked_time = self.asked(paths, onward=False)
        return torch.where(asked_place[..., None], place, paths.place), torch.where(asked_time, time, paths.time)

    @torch.inference_mode()
    def step_by_step(
        self, paths: Paths, known: int, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "B n 2"], Float[Tensor, "B n"]]:
        """Places after the first ``known`` points, and their moments where these are hidden, patch after patch.

        ``known`` is a multiple of the patch, and all trajectories are as long as the batch.
        """
        place, time = paths.place.clone(), paths.time.clone()
        paths = Paths(place, time, paths.start, paths.hidden_place, paths.hidden_time, paths.lengths)
        p, n = self.tokenizer.patch, place.shape[1]
        if known % p or n % p:
            raise ValueError(f"{known} known points of {n} are no whole patches of {p}")
        schedule = Schedule.autoregressive(n // p)
        state = self.backbone.new_state(len(place), schedule)
        draft: State = {}
        first = 0
        for last in range(known // p + 1, n // p + 1):
            tokens = self.tokenizer.onward(paths, first, last, draft)
            mixed = self._backbone(tokens, schedule, state)[:, -1:]
            newest = PointTokens(
                tokens.inputs, tokens.rows, *(x[:, -p:] for x in (tokens.place, tokens.time, tokens.metres, tokens.seconds))
            )
            points = slice((last - 1) * p, last * p)
            told_place, told_time = self._told(self.tokenizer.apart(mixed), newest, temperature, generator)
            place[:, points] = told_place
            time[:, points] = torch.where(paths.hidden_time[:, points], told_time, time[:, points])
            first = last
        return place, time

    def _told(
        self, hidden: Tensor, tokens: PointTokens, temperature: float, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "B p 2"], Float[Tensor, "B p"]]:
        """What the heads say, in metres and seconds."""

        def drawn(head: Head, hidden: Tensor) -> Tensor:
            return head.sample(hidden, hidden, temperature=temperature, generator=generator)

        place = drawn(self.tokenizer.place_head, hidden)
        time = drawn(self.tokenizer.time_head, self.tokenizer.knowing(hidden, place))[..., 0]
        return tokens.place + tokens.metres[..., None] * place, tokens.time + tokens.seconds * time.sinh()
