"""Writes references.json: what cd-fvd, pytorch-fid, torch-fidelity and torchmetrics make of the same numbers.

None of them is a dependency. In an environment with this project's, and beside it scipy:

    pip download --no-deps cd-fvd==0.1.1 pytorch-fid==0.3.0 torch-fidelity==0.4.0 torchmetrics==1.9.0
    (unpack them into one folder)
    PYTHONPATH=folder/of/them:. python tests/evaluate/references/make.py

Weights and pictures come from closed forms (:mod:`tests.evaluate.references.inputs`), not from random numbers.
"""

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.evaluate.references import inputs


def cd_fvd_arithmetic() -> dict[str, Any]:
    """Statistics and distance of cd-fvd's class, and of the function beside its I3D, on the same features."""
    statistics = import_module("cdfvd.utils.metric_utils").FeatureStats
    evaluator = import_module("cdfvd.fvd").cdfvd
    made, real = inputs.features()
    sets = []
    for rows in (made, real):
        stats = statistics(capture_mean_cov=True)
        stats.append(rows.numpy())
        sets.append(stats)
    # scipy >= 1.18 has no `disp`; the class's own line, with and without it.
    scipy = import_module("scipy.linalg")
    (mu_a, s_a), (mu_b, s_b) = (stats.get_mean_cov() for stats in sets)
    try:
        biased = float(evaluator.compute_fvd_from_stats(None, *sets))
    except TypeError:
        root = scipy.sqrtm(s_b @ s_a)
        biased = float(np.real(np.square(mu_b - mu_a).sum() + np.trace(s_a + s_b - root * 2)))
    unbiased = import_module("cdfvd.third_party.i3d.utils").frechet_distance(made.double(), real.double())
    return {"biased": biased, "unbiased": float(unbiased)}


def cd_fvd_preprocessing() -> dict[str, Any]:
    """Its preprocessing of the same frames, and its loader's cut of a frame that is no square."""
    clip = inputs.clips(1, 3, 40, 56)
    i3d = import_module("cdfvd.third_party.i3d.utils").preprocess_i3d(clip.numpy())
    mae = import_module("cdfvd.third_party.VideoMAEv2.utils").preprocess_videomae(clip.numpy())
    large = inputs.clips(1, 1, 256, 300).numpy()  # larger than 224 px, where antialiasing would show
    i3d_large = import_module("cdfvd.third_party.i3d.utils").preprocess_i3d(large)
    loaded = import_module("cdfvd.utils.data_utils").preprocess(clip[0], 24)["video"]
    cut = (loaded * 255).byte().permute(1, 2, 3, 0)
    return {
        "i3d": _samples(i3d),
        "i3d_large": _samples(i3d_large),
        "videomae": _samples(mae),
        "loader": cut[0].flatten()[::37].tolist(),
        "loader_shape": list(cut.shape),
    }


def videomae() -> dict[str, Any]:
    """Features of cd-fvd's VideoMAE of tiny size, from the weights that a file in its layout would hold."""
    network = import_module("cdfvd.third_party.VideoMAEv2.videomaev2_finetune")
    preprocess = import_module("cdfvd.third_party.VideoMAEv2.utils").preprocess_videomae
    model = network.VisionTransformer(**inputs.VIDEOMAE, norm_layer=network.partial(torch.nn.LayerNorm, eps=1e-6))
    model.load_state_dict(inputs.weights(model.state_dict()))
    with torch.no_grad():
        made = model.eval().forward_features(preprocess(inputs.clips(2, 16, 20, 24).numpy()))
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return {"features": made.flatten().tolist(), "shapes": shapes}


def inception() -> dict[str, Any]:
    """Features of FID's Inception by pytorch-fid's blocks, for pictures prepared as torch-fidelity's package does."""
    module: Any = import_module("pytorch_fid.inception")
    module.load_state_dict_from_url = lambda *arguments, **options: _inception_weights(module)
    network = module.fid_inception_v3()
    network.fc = network.dropout = torch.nn.Identity()
    resize = import_module("torch_fidelity.interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
    pictures = inputs.clips(1, 2, 24, 32)[0].permute(0, 3, 1, 2).float()
    options: dict[str, Any] = {"size": (299, 299), "align_corners": False}
    antialiased = torch.nn.functional.interpolate(pictures, mode="bilinear", antialias=True, **options)
    made = {}
    for name, ready in (("torchmetrics", antialiased), ("tensorflow", resize(pictures, **options))):
        with torch.no_grad():
            made[name] = network.eval()((ready - 128) / 128)[:, ::64].tolist()
    return {"features": made}


def _inception_weights(module: Any) -> dict[str, Any]:
    blank = module._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    return inputs.weights(blank.state_dict())


def kernel() -> float:
    """torchmetrics' polynomial MMD, which is KID's of one subset."""
    poly = import_module("torchmetrics.image.kid").poly_mmd
    made, real = (rows.double() for rows in inputs.features())
    return float(poly(made, real[: len(made)]))


def _samples(made: torch.Tensor) -> list[float]:
    return made.flatten()[:: math.ceil(made.numel() / 97)].tolist()


def main() -> None:
    """Write the file."""
    found = {
        "versions": {"cd-fvd": "0.1.1", "pytorch-fid": "0.3.0", "torch-fidelity": "0.4.0", "torchmetrics": "1.9.0"},
        "torch": torch.__version__,
        "cd-fvd": {"arithmetic": cd_fvd_arithmetic(), "preprocessing": cd_fvd_preprocessing(), "videomae": videomae()},
        "inception": inception(),
        "kernel": kernel(),
    }
    path = Path(__file__).with_name("references.json")
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
