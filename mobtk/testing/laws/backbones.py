"""Laws of backbones."""

from typing import Any

import torch

from mobtk.contracts import (
    Backbone,
    Rows,
)
from mobtk.schedule import Schedule
from mobtk.testing.fixtures import SCHEDULES, WIDTH
from mobtk.testing.laws.common import Law, all_learn, noise, options_have_defaults, same, seeded, vectors


def _backbone(kind: type[Backbone]) -> Any:
    backbone = seeded(lambda: kind(WIDTH)).eval()
    with torch.no_grad():
        for p in backbone.parameters():  # away from the start, where some branches are zero
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return backbone


def shape_is_kept(kind: type[Backbone]) -> None:
    """The output has the shape of the input, for every schedule, with and without a condition."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = vectors(schedule.n_tokens)
        for c in (None, cond):
            assert backbone(x, schedule, c).shape == x.shape, "the output has another shape"


def outputs_are_repeatable(kind: type[Backbone]) -> None:
    """In eval mode a sequence has the same output every time."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = vectors(schedule.n_tokens)
        same(backbone(x, schedule, cond), backbone(x, schedule, cond), "the output changes from call to call")


def later_groups_change_nothing(kind: type[Backbone]) -> None:
    """Outputs of a group never change when later groups change."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = vectors(schedule.n_tokens)
        before = backbone(x, schedule, cond)
        for k, group in enumerate(schedule.groups()):
            changed = x.clone()
            changed[:, group.stop :] += noise(changed[:, group.stop :])
            after = backbone(changed, schedule, cond)
            same(before[:, : group.stop], after[:, : group.stop], f"group {k} of {schedule.lengths} sees later groups")


def earlier_tokens_matter(kind: type[Backbone]) -> None:
    """The last token's output depends on the input of some token before it."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = vectors(schedule.n_tokens)
        changed = x.clone()
        changed[:, :-1] += noise(changed[:, :-1])
        difference = (backbone(x, schedule, cond) - backbone(changed, schedule, cond))[:, -1].abs().max().item()
        assert difference > 0, f"nothing is mixed under schedule {schedule.lengths}"


def group_by_group_is_all_at_once(kind: type[Backbone]) -> None:
    """One group at a time, with its state, equals all at once."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = vectors(schedule.n_tokens)
        for c in (None, cond):
            state = backbone.new_state(len(x), schedule)
            parts = [backbone(x[:, group], schedule, c, state) for group in schedule.groups()]
            same(
                torch.cat(parts, 1),
                backbone(x, schedule, c),
                f"group by group differs under {schedule.lengths}: `state` does not hold all that came before",
            )


def groups_may_come_together(kind: type[Backbone]) -> None:
    """Several groups at a time, with a state, equal all at once."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = vectors(schedule.n_tokens)
        state = backbone.new_state(len(x), schedule)
        cut = schedule.starts[-1]
        parts = [backbone(part, schedule, cond, state) for part in (x[:, :cut], x[:, cut:]) if part.shape[1]]
        same(torch.cat(parts, 1), backbone(x, schedule, cond), f"several groups at once differ under {schedule.lengths}")


def padding_changes_nothing(kind: type[Backbone]) -> None:
    """Where it declares `takes_rows`, what stands after the length of a sequence changes nothing before it."""
    if not kind.takes_rows:
        return
    backbone: Any = _backbone(kind)
    for schedule in (Schedule.autoregressive(9), Schedule((9,))):
        x, cond = vectors(9)
        lengths = torch.tensor([9, 4, 1])
        padding = torch.arange(9) >= lengths[:, None]
        noisy = torch.where(padding[..., None], x + 3 * noise(x), x)
        a, b = (backbone(given, schedule, cond, rows=Rows(lengths)) for given in (x, noisy))
        same(a[~padding], b[~padding], f"padding is read under {schedule.lengths}")
        short = Schedule.autoregressive(4) if schedule.is_autoregressive else Schedule((4,))
        same(a[1:2, :4], backbone(x[1:2, :4], short, cond[1:2]), "a padded sequence gets another output than alone")


def sequences_are_apart(kind: type[Backbone]) -> None:
    """A sequence alone gets the output it gets among others."""
    backbone = _backbone(kind)
    for schedule in SCHEDULES:
        x, cond = vectors(schedule.n_tokens)
        same(backbone(x, schedule, cond)[:1], backbone(x[:1], schedule, cond[:1]), "sequences of a batch mix")


def condition_steers_where_declared(kind: type[Backbone]) -> None:
    """The condition changes the output where it declares `uses_condition`, and not where it does not."""
    backbone = _backbone(kind)
    x, cond = vectors(9)
    schedule = SCHEDULES[0]
    change = (backbone(x, schedule, cond) - backbone(x, schedule, cond + noise(cond))).abs().max().item()
    assert (change > 0) == backbone.uses_condition, "`uses_condition` does not say whether the condition matters"


def everything_learns(kind: type[Backbone]) -> None:
    """A training pass gives every parameter a finite gradient."""
    backbone = _backbone(kind).train()
    x, cond = vectors(9)
    x.requires_grad_()  # which a part without parameters wants
    backbone(x, SCHEDULES[0], cond).square().sum().backward()
    all_learn(backbone)


def backbone_is_restored(kind: type[Backbone]) -> None:
    """Saved and loaded, it answers the same."""
    backbone = _backbone(kind)
    torch.manual_seed(7)
    fresh: Any = kind(WIDTH).eval()
    fresh.load_state_dict(backbone.state_dict())
    x, cond = vectors(9)
    same(fresh(x, SCHEDULES[0], cond), backbone(x, SCHEDULES[0], cond), "loaded into a fresh copy, it answers otherwise")


LAWS: tuple[Law, ...] = (
    shape_is_kept,
    outputs_are_repeatable,
    later_groups_change_nothing,
    earlier_tokens_matter,
    group_by_group_is_all_at_once,
    groups_may_come_together,
    padding_changes_nothing,
    sequences_are_apart,
    condition_steers_where_declared,
    everything_learns,
    backbone_is_restored,
    options_have_defaults,
)
