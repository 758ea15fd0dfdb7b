"""Models that visitors may open: folders below one that the page's owner named, of safetensors and without pickles."""

from pathlib import Path, PurePosixPath

from inflate.checkpoint.header import is_pickle
from inflate.errors import InputError

INDEX = "model_index.json"


class Offered:
    """The models below ``root``; none where it is None."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root.resolve() if root else None

    def names(self) -> list[str]:
        """Folders with a pipeline's index, by their paths from ``root`` on."""
        if self.root is None:
            return []
        return sorted(path.parent.relative_to(self.root).as_posix() for path in self.root.rglob(INDEX))

    def folder(self, name: str) -> Path:
        """The folder of that name, which is as :meth:`names` gives it.

        Raises:
            InputError: the owner offers none, or none of that name, or it holds a pickle or no safetensors.
        """
        if self.root is None:
            raise InputError("This page has one model only; its owner can offer more with --allow-models.")
        folder = self._below(name)
        if folder is None:
            raise InputError(
                f"No model called {name} is offered here; choose one of: {', '.join(self.names()) or 'none'}."
            )
        files = [path for path in folder.rglob("*") if path.is_file()]
        if any(is_pickle(path) for path in files):
            raise InputError(f"The model {name} holds pickles, which can run programs: it is not opened here.")
        if not any(path.suffix == ".safetensors" for path in files):
            raise InputError(f"The model {name} holds no safetensors: it is not opened here.")
        return folder

    def _below(self, name: str) -> Path | None:
        assert self.root is not None
        # One spelling for each: what is learned about models is kept by their names.
        if PurePosixPath(name).as_posix() != name or ".." in PurePosixPath(name).parts:
            return None
        try:
            folder = (self.root / name).resolve()
            found = folder.is_relative_to(self.root) and (folder / INDEX).is_file()
        except (OSError, ValueError, RuntimeError):  # too long, with a zero in it, links in a circle
            return None
        return folder if found else None
