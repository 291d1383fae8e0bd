"""What goes wrong through no fault of ours, told in one sentence."""


class MobtkError(Exception):
    """A user's mistake or bad input: one sentence that names the culprit and what would have worked.

    The command line prints it without a stack trace and exits with code 2.
    """


class PartMismatch(MobtkError):
    """Two parts of a recipe do not fit each other, found before any training."""


class UnknownPart(MobtkError):
    """No installed plugin registers a part or a recipe of this name."""


class BadInput(MobtkError):
    """A file, a column or a value that cannot be used."""


class TryAgain(BadInput):
    """A fault of the machine, such as a full disk: what was done so far is kept for the next try."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    words = str(error).strip()
    return words.splitlines()[0] if words else type(error).__name__
