"""The exceptions a user can cause: bad input, and asking a run to stop; and notes."""


class InputError(ValueError):
    """Bad input: one clear sentence saying what was wrong, where, and what to do.

    The command line prints it after ``error: `` and exits with code 2; library callers can catch it as ``ValueError``.
    """


class Note(UserWarning):
    """What a user should know of a result, in one sentence; the command line prints it as it is."""


class StoppedError(Exception):
    """A run was asked to stop, saved what it had and left; the message is one sentence that says how to go on.

    ``exit_code``: what a program ends with then, 128 and the signal's number: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, sentence: str, signal_number: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signal_number


def nearest(name: str, allowed: "list[str] | tuple[str, ...]") -> str:
    """A hint like `` (did you mean 'vdm'?)`` for a misspelt ``name``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def a(name: str) -> str:
    """``name`` of a class with its article, by how it is spoken: an AutoencoderKL, a UNet2DModel, an SD3Model."""
    first = "AEFHILMNORSX" if name[:2].isupper() else "AEIOU"
    vowel = name[:1].upper() in first and not name.lower().startswith(("unet", "uni", "use"))
    return f"{'an' if vowel else 'a'} {name}"
