"""The errors that a user can correct."""

import difflib
from collections.abc import Iterable


class OodalError(ValueError):
    """Bad input or bad content: the message names the file, the value, the limit and the way out."""


def suggest(name: object, known: Iterable[str]) -> str:
    """Return the nearest known name as a question, or else all known names."""
    names = [str(each) for each in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    return f'did you mean {close[0]!r}?' if close else f'there are {", ".join(names)}'


def require_known(names: Iterable[object], known: Iterable[str], what: str) -> None:
    """Refuse unknown names.

    :param what: what they are of, at the beginning of the message.
    :raises OodalError: naming the first unknown one, and the nearest that is known.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise OodalError(f'{what}: {name!r} is not known; {suggest(name, known)}')
