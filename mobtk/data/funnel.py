"""The funnel: what each step of a preparation lost, and why."""

from collections.abc import Iterable

from msgspec import Struct


class Loss(Struct, omit_defaults=True):
    """What was left after one step.

    Args:
        step: what was done.
        users: users left.
        points: points left; from the cutting into sequences on, those that fall in them.
        sequences: sequences left, once there are any.
        why: what was lost and for which reason.
    """

    step: str
    users: int
    points: int
    sequences: int | None = None
    why: str = ""


def table(funnel: Iterable[Loss]) -> str:
    """The funnel as text, one line a step."""
    lines = [f"{'step':<28}{'users':>9}{'points':>13}{'sequences':>11}  what was lost"]
    for loss in funnel:
        sequences = "" if loss.sequences is None else f"{loss.sequences:,}"
        lines.append(f"{loss.step:<28}{loss.users:>9,}{loss.points:>13,}{sequences:>11}  {loss.why}".rstrip())
    return "\n".join(lines)
