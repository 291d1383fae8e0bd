"""Options as they come from a command line or a file, checked against the constructor they are for."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from mobtk.errors import BadInput, MobtkError

T = TypeVar("T")


def call(what: str, make: Callable[..., T], imposed: Sequence[Any], options: Mapping[str, Any]) -> T:
    """``make(*imposed, **options)``, whose keyword-only parameters are what may be chosen.

    Args:
        what: what is made, for messages, such as ``backbone 'mamba'``.
        make: a class or a function.
        imposed: what the data or a neighbour impose.
        options: what the user chose; checked by name, and by type where the parameter has a plain one.

    Raises:
        BadInput: there is no such option, or its value does not do.
    """
    known = _options(make)
    if inspect.isclass(owner := getattr(make, "__self__", None)):
        known = _options(owner) | known  # what a class method such as ``fit`` hands on
    given = {}
    for name, value in options.items():
        if name not in known:
            raise BadInput(f"{what} has no option {name!r}; it has {', '.join(sorted(known)) or 'none'}")
        try:
            given[name] = msgspec.convert(value, known[name])
        except msgspec.ValidationError as error:
            raise BadInput(f"{what} cannot have {name}={value!r}: {str(error)[0].lower()}{str(error)[1:]}") from None
        except TypeError:  # an annotation that is no plain data
            given[name] = value
    try:
        return make(*imposed, **given)
    except MobtkError:
        raise
    except Exception as error:
        chosen = ", ".join(f"{k}={v!r}" for k, v in given.items())
        if given and isinstance(error, ValueError):  # how constructors refuse what they are given
            raise BadInput(f"{what} cannot be made with {chosen}: {error}") from error
        error.add_note(f"while {what} was made" + (f" with {chosen}" if given else ""))
        raise


def _options(make: Callable[..., Any]) -> dict[str, Any]:
    return {n: p.annotation for n, p in inspect.signature(make).parameters.items() if p.kind is p.KEYWORD_ONLY}
