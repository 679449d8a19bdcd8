"""Patterns of real pictures: SqueezeNet's last features where the class's own map fires."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PICTURE_MEAN, PICTURE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 10


def imagenette_patterns(data_dir: Path, num_images: int, size_px: int, wnids=None) -> np.ndarray:
    """Return float16 patterns (P, 512) of the first training images of (some of) the ten classes.

    ``map > 0.2 max`` on the network's own grid, as `extract-features` does, one class after the
    other, as if all were patterns of one class.
    """
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_0

    net = squeezenet1_0()
    net.load_state_dict(load_file(data_dir / "weights" / "squeezenet1_0.safetensors"))
    net.eval()
    found = []
    for line in (data_dir / "imagenette" / "classes.txt").read_text().splitlines():
        wnid, index = line.split()[:2]
        if wnids is not None and wnid not in wnids:
            continue
        files = sorted((data_dir / "imagenette" / "train" / wnid).iterdir())[:num_images]
        for at in range(0, len(files), BATCH):
            pictures = []
            for file in files[at : at + BATCH]:
                with Image.open(file) as opened:
                    picture = opened.convert("RGB").resize((size_px, size_px), Image.BILINEAR)
                pictures.append(np.asarray(picture, np.float32) / 255)
            picture_NHWC = (np.stack(pictures) - PICTURE_MEAN) / PICTURE_STD
            with torch.inference_mode():
                picture_NCHW = torch.from_numpy(picture_NHWC.astype(np.float32)).permute(0, 3, 1, 2)
                feature = net.features(picture_NCHW)
                score = net.classifier[1](feature)[:, int(index)]
            fires = score > 0.2 * score.amax(dim=(1, 2), keepdim=True).clamp_min(0)
            fires &= score.amax(dim=(1, 2), keepdim=True) > 0
            found.append(feature.permute(0, 2, 3, 1)[fires].half().numpy())
    return np.concatenate(found)
