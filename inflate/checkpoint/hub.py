"""Models named as on the model hub, `org/name` or `org/name@revision`: from the local cache, or downloaded into it."""

import errno
import re
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from inflate.errors import InputError, nearest

_REPOSITORY = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# What a model is read with beside its weights: configs, tokenizers' vocabularies.
_SMALL_FILES = (".json", ".txt", ".model")
# What the hub's library raises when it cannot reach the hub; its http library, which has changed, has an error of its
# own that the library's derives from.
_UNREACHABLE: tuple[type[Exception], ...] = (OSError, HfHubHTTPError.__mro__[1])
# What of it is the matter of this machine's disk instead.
_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_WEIGHTS = re.compile(r"(\w+?)(?:\.(\w+?))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.safetensors", re.ASCII)


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form of a repository's name on the hub."""
    return _REPOSITORY.fullmatch(name) is not None


def download(name: str, variant: str | None = None) -> Path:
    """The folder in the local cache with a repository's model; what is missing there is downloaded.

    HF_HUB_OFFLINE=1 keeps to the cache; HF_HOME, HF_HUB_CACHE and HF_TOKEN are honoured, as by every program that uses
    the cache. Only configs and safetensors are fetched, of one variant; never a pickle.

    Args:
        name: `org/name` or `org/name@revision` (a branch, a tag or a commit).
        variant: which weights, such as "fp16"; the plain ones by default, or the only ones there are.

    Raises:
        InputError: no such repository or revision, no access to it, no safetensors in it, or neither cached nor
            reachable.
    """
    match = _REPOSITORY.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} is not the name of a repository; those are written org/name or org/name@revision")
    repo, revision = match["repo"], match["revision"]
    try:
        listed = HfApi().list_repo_files(repo, revision=revision)
    except _UNREACHABLE as error:
        cached = _cached(repo, revision)
        if cached is None:
            raise InputError(_reason(name, repo, revision, error)) from error
        return cached
    files = wanted_files(repo, listed, variant)
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[_literally(file) for file in files]))
    except GatedRepoError as error:  # anyone may list such a repository
        raise InputError(_reason(name, repo, revision, error)) from error
    except _UNREACHABLE as error:
        if getattr(error, "errno", None) in _THIS_MACHINE:
            raise
        raise InputError(
            f"the download of {repo} broke off ({type(error).__name__}); the same command goes on where it stopped"
        ) from error


def _cached(repo: str, revision: str | None) -> Path | None:
    """The folder of a repository in the local cache, whole or not: what is missing is seen when it is read."""
    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[]))
    except LocalEntryNotFoundError:
        return None


def _reason(name: str, repo: str, revision: str | None, error: Exception) -> str:
    """One sentence: why a repository cannot be had."""
    login = "log in with 'hf auth login' or set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        return f"the repository {repo} is gated: accept its terms on its page on the hub, then {login}"
    if isinstance(error, RepositoryNotFoundError):
        return f"no such folder: {name}, and no such repository on the hub; if it is a private one, {login}"
    if isinstance(error, RevisionNotFoundError):
        return f"the repository {repo} has no revision {revision!r}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"no such folder: {name}, and it is not in the hub's local cache; unset HF_HUB_OFFLINE to download it"
    return (
        f"no such folder: {name}, and it is not in the hub's local cache; "
        f"the hub cannot be reached to download it ({type(error).__name__})"
    )


def wanted_files(repo: str, files: list[str], variant: str | None) -> list[str]:
    """Those of a repository's files that make the model: configs, vocabularies and one variant's safetensors.

    Single-file checkpoints beside the folders of a pipeline are left out, and so are pickles.

    Raises:
        InputError: no safetensors, none of `variant`, or several variants and none chosen.
    """
    wanted = [file for file in files if file.endswith(_SMALL_FILES)]
    pipeline = "model_index.json" in files
    parts: dict[str, dict[str | None, list[str]]] = {}  # temporal.safetensors is another than the model beside it
    for file in files:
        path = PurePosixPath(file)
        match = _WEIGHTS.fullmatch(path.name)
        if match and not (pipeline and len(path.parts) == 1):
            part = parts.setdefault(str(path.parent / match[1]), {})
            part.setdefault(match[2] or match[3], []).append(file)
    if not parts:
        raise InputError(f"the repository {repo} has no safetensors in diffusers' layout; nothing else is downloaded")
    named = sorted({name for by_variant in parts.values() for name in by_variant if name is not None})
    if variant is not None and variant not in named:
        raise InputError(
            f"the repository {repo} has no weights of variant {variant!r}{nearest(variant, named)}; "
            f"the variants there: {', '.join(named) or 'none'}"
        )
    for part, by_variant in parts.items():
        if variant in by_variant:  # the plain ones too
            wanted += by_variant[variant]
        elif None in by_variant or len(by_variant) == 1:
            wanted += by_variant.get(None) or next(iter(by_variant.values()))
        else:
            raise InputError(
                f"the repository {repo} has weights in several variants of {part} "
                f"({', '.join(sorted(map(str, by_variant)))}) and none without; choose one with --variant (variant=)"
            )
    return wanted


def _literally(file: str) -> str:
    """A pattern that matches `file` alone."""
    return re.sub(r"([*?[])", r"[\1]", file)
