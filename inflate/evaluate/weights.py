"""Weights of feature networks: which file it is, by its SHA-256, and whether that is the published one."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inflate.errors import InputError

# SHA-256 in hex, or its first eight digits where only those are published, as torch's hub puts them into file names.
PUBLISHED = {
    # 51,235,320 bytes; https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt of universome/stylegan-v, and
    # flateon/FVD-I3D-torchscript on the model hub.
    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2": "i3d_torchscript.pt",
    # 2,023,804,201 bytes; mae-g/ of OpenGVLab/VideoMAE2 on the model hub, which cd-fvd uses.
    "5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70": "vit_g_hybrid_pt_1200e_ssv2_ft.pth",
    # torch-fidelity's and pytorch-fid's conversion of TensorFlow's inception-2015-12-05.tgz, one file by two names.
    "6726825d": "pt_inception-2015-12-05-6726825d.pth",
}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Weights:
    """A file, or all files of weights in a folder together: ``sha256``, and as ``published`` its name, or "".

    ``packaged``: it comes with a package that says by its version which file it is.
    """

    source: str
    sha256: str
    published: str = ""
    packaged: bool = False

    @property
    def short(self) -> str:
        """Eight digits to tell it by."""
        return self.sha256[:8]

    def sentence(self) -> str:
        """For people."""
        what = f"the published {self.published}" if self.published else "not among the published files known here"
        what = "as it is packaged" if self.packaged else what
        return f"{self.source}, SHA-256 {self.sha256}: {what}"


def weights_of(path: Path, source: str = "", packaged: bool = False) -> Weights:
    """The hash of a file, or of a folder's weights (names and contents).

    Raises:
        InputError: there is no such file, or no weights in the folder.
    """
    if path.is_file():
        digest = hash_of(path)
        return Weights(source or path.name, digest, PUBLISHED.get(digest) or PUBLISHED.get(digest[:8], ""), packaged)
    if not path.is_dir():
        raise InputError(f"there is no {path}; name a file or folder with a feature network's weights")
    files = sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS)
    if not files:
        raise InputError(f"{path} holds no weights ({', '.join(_WEIGHTS)}); name the folder that does")
    return Weights(source or path.name, _together(files), packaged=packaged)


def _together(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{hash_of(file)}\n".encode())
    return digest.hexdigest()


def hash_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, also one under ``module``, ``model`` or ``state_dict``; no code is run.

    Raises:
        InputError: damaged, or a pickle of more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{path} cannot be read as a file of torch tensors: it is damaged, or holds more than tensors"
        ) from error
    for key in ("module", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise InputError(f"{path} holds no weights: it is no state dict of torch tensors")
    return tensors
