"""The generator: tokenizer, backbone and traits put together. Every family of sequence model is this one loop."""

from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import Backbone, State, Tokenizer
from mobtk.models.traits import TraitEmbedding


@final
class Generator(nn.Module):
    """Generates sequences of places, group by group of the tokenizer's schedule.

    Args:
        tokenizer: sequences <-> tokens.
        backbone: reads the inputs the tokenizer makes of the tokens so far.
        traits: makes the condition; ``None`` generates without one.
    """

    def __init__(self, tokenizer: Tokenizer, backbone: Backbone, traits: TraitEmbedding | None = None) -> None:
        super().__init__()
        self.tokenizer, self.backbone, self.traits = tokenizer, backbone, traits

    def train(self, mode: bool = True) -> "Generator":
        """Training mode, except for the codec: the tokens it makes must not change while the generator learns them."""
        super().train(mode)
        if self.tokenizer.codec is not None:
            self.tokenizer.codec.eval()
        return self

    def inputs(
        self, tokens: Shaped[Tensor, "B L *C"], traits: Int[Tensor, "B n"] | None = None
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D"] | None]:
        """What the backbone reads when all tokens are given, and the condition."""
        cond = self._condition(traits)
        x = self.tokenizer.inputs(tokens)
        if cond is not None:
            x = self._told(x, cond, self._wants_condition())
        return x, cond

    def token_losses(
        self, tokens: Shaped[Tensor, "B L *C"], traits: Int[Tensor, "B n"] | None = None
    ) -> Float[Tensor, "B L"]:
        """Negative log-likelihood of each token given the groups before it, in nats."""
        x, cond = self.inputs(tokens, traits)
        hidden = self.backbone(x, self.tokenizer.schedule, cond)
        return self.tokenizer.head.loss(hidden, x, tokens)

    def loss(
        self, tokens: Shaped[Tensor, "B L *C"], traits: Int[Tensor, "B n"] | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Mean negative log-likelihood a token, and what the backbone adds to it."""
        terms = {"tokens": self.token_losses(tokens, traits).mean()}
        if self.backbone.auxiliary_loss is not None:
            terms["balance"] = self.backbone.auxiliary_loss
        return terms

    @torch.inference_mode()
    def generate(self, traits: Int[Tensor, "B n"] | None, n: int, **sampling: Any) -> Int[Tensor, "B T"]:
        """Draw ``n`` sequences, one for each row of traits; how, is said as in :meth:`draw`."""
        return self.tokenizer.decode(self.draw(traits, n, **sampling))

    @torch.inference_mode()
    def draw(
        self,
        traits: Int[Tensor, "B n"] | None,
        n: int,
        *,
        given: Shaped[Tensor, "B l *C"] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        coupling: int | None = None,
        generator: torch.Generator | None = None,
        bfloat16: bool = False,
    ) -> Shaped[Tensor, "B L *C"]:
        """Draw the tokens of ``n`` sequences, one for each row of traits; of whole groups that are ``given``, none.

        Tokens of a group are decided at once, so by themselves they know nothing of each other's draw. With a
        ``coupling`` of some steps (a day; without one, none or 0), those of a group that stand in the same window of so
        many steps share their random numbers: each still follows the model's distribution, and they agree where they can.
        With ``bfloat16`` the matrix products of backbone and head are in it; the tokenizer stays exact.
        """
        schedule = self.tokenizer.schedule
        cond = self._condition(traits)
        state = self.backbone.new_state(n, schedule)
        draft: State = {}
        tokens = torch.empty(n, schedule.n_tokens, dtype=torch.long, device=next(self.parameters()).device)
        known = 0 if given is None else given.shape[1]
        if given is not None:
            tokens = given.new_empty(n, schedule.n_tokens, *given.shape[2:])
            tokens[:, :known] = given
        window = None
        if coupling:
            window = ((schedule.time(tokens.device) + 0.5) / coupling).long()
        wants_condition = self._wants_condition()
        for k, group in enumerate(schedule.groups()):
            x = self.tokenizer.next_inputs(tokens[:, : group.start], k, draft)
            if cond is not None:
                x = self._told(x, cond, wants_condition[group])
            with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bfloat16):
                hidden = self.backbone(x, schedule, cond, state)
                if group.stop <= known:
                    continue
                drawn = self.tokenizer.head.sample(
                    hidden,
                    x,
                    temperature=temperature,
                    top_k=top_k,
                    top_p=top_p,
                    min_p=min_p,
                    share=None if window is None else window[group],
                    generator=generator,
                )
            if drawn.dtype != tokens.dtype or drawn.ndim != tokens.ndim:  # numbers rather than codes
                tokens = drawn.new_empty(n, schedule.n_tokens, *drawn.shape[2:])
            tokens[:, group] = drawn
        return tokens

    def _wants_condition(self) -> Bool[Tensor, "L"]:
        """The tokens to whose inputs the condition is added: those the tokenizer names, or all where no layer knows it."""
        group = self.tokenizer.schedule.group_of().to(next(self.parameters()).device)
        told = torch.tensor(sorted(self.tokenizer.told), device=group.device)
        return torch.isin(group, told) if self.backbone.uses_condition else torch.ones_like(group, dtype=torch.bool)

    def _told(
        self, x: Float[Tensor, "B n D"], cond: Float[Tensor, "B D"], wants_condition: Bool[Tensor, "n"]
    ) -> Float[Tensor, "B n D"]:
        """Inputs that know the condition, but for the channels that are given to the head."""
        given = self.tokenizer.given
        return x + F.pad(cond[:, None, given:], (given, 0)) * wants_condition[:, None]

    def _condition(self, traits: Int[Tensor, "B n"] | None) -> Float[Tensor, "B D"] | None:
        return None if self.traits is None or traits is None else self.traits(traits)
