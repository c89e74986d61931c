"""The one exception for mistakes a user can mend; the command line prints it as a sentence, without a traceback."""

import difflib
from collections.abc import Iterable


class LetheError(Exception):
    """What was wrong, the value, what is allowed, what to do: one or two sentences."""


def unknown(kind: str, name: str, known: Iterable[str]) -> LetheError:
    """The error for a name that is not in a table, with the nearest right one.

    >>> str(unknown("method", "gron_npo", ["npo", "grun_npo"]))
    "unknown method 'gron_npo'; did you mean 'grun_npo'? known: npo, grun_npo"
    >>> str(unknown("method", "GRUN-NPO", ["npo", "grun_npo"]))
    "unknown method 'GRUN-NPO'; did you mean 'grun_npo'? known: npo, grun_npo"
    """
    names = list(known)
    alike = {_plain(known): known for known in reversed(names)}  # of two that are written alike the first
    near = difflib.get_close_matches(_plain(name), alike, n=1, cutoff=0.5)
    hint = f" did you mean {alike[near[0]]!r}?" if near else ""
    return LetheError(f"unknown {kind} {name!r};{hint} known: {', '.join(names) or 'none'}")


def _plain(name: str) -> str:
    """As it is compared: capitals and the sign between words are the commonest slips."""
    return name.lower().replace("-", "_")
