"""The one exception a user can cause."""


class InputError(ValueError):
    """Bad input: one clear sentence saying what was wrong, where, and what to do.

    The command line prints it after ``error: `` and exits with code 2; library callers can catch it as ``ValueError``.
    """


def nearest(name: str, allowed: "list[str] | tuple[str, ...]") -> str:
    """A hint like `` (did you mean 'vdm'?)`` for a misspelt ``name``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
