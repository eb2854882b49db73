"""Chapter 10: the image transformer that it starts from, published weights, and the action in a clip of the reader's.

image_transformer()      learned organs from slices of 400 phantom patients; recorded in notebooks/results
published_vivit()        a folder with Google's ViViT-B if it has been fetched, else with a tiny ViViT in its layout
image_weights()          torchvision's ViT-B/16 likewise
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange

from ..data import load_volumes
from ..errors import CheckpointError
from ..experiments.predicting import Predictor, read_clips, read_predictor  # noqa: F401  (for the chapter)
from ..experiments.pretraining import timm_names  # noqa: F401
from ..explain.pictures import clips_figure
from ..explain.weights import attention_maps
from ..models import build_model
from ..pretrained import load_pretrained, options_for
from ..support.places import checkout, given_folder, kept
from ..vivit import ViViT
from ..weights.files import read_weights
from ..weights.layouts import HUGGING_FACE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = "https://huggingface.co/google/vivit-b-16x2-kinetics400/resolve/main"
SETTINGS = ("config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
ACTIONS = ("juggling balls", "playing chess", "tai chi", "zumba", "washing dishes", "yoga")


def image_transformer() -> ViViT:
    """The recorded image transformer in eval mode: it learned to name organs in slices of 28×28, in patches of 7×7.

    Raises CheckpointError where the file is not there.
    """
    path = checkout() / "notebooks" / "results" / "image_transformer.safetensors"
    options = {"clip_shape": (1, 1, 28, 28), "tokenizer": "frames", "tubelet": (1, 7, 7)}
    model = build_model("spacetime", **options, **options_for(path))
    load_pretrained(model, path)
    return model.eval()


def image_weights(name: str = "torchvision:vit_b_16", *, download: bool = False) -> dict[str, torch.Tensor]:
    """torchvision's ViT-B/16 as a state dict, if it was downloaded before or may be now (330 MB).

    Otherwise a tiny transformer with torchvision's names and random weights, and one line that says so.
    Raises CheckpointError where the download fails.
    """
    from torchvision.models import get_model_weights
    from torchvision.models.vision_transformer import VisionTransformer

    default = get_model_weights(name.removeprefix("torchvision:")).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / default.url.rsplit("/", 1)[-1]
    if download or file.is_file():
        return dict(read_weights(name)[0])
    print("ViT-B/16 is not on this machine. A tiny transformer of random weights in its layout takes its place;")
    print(f"for the real one: image_weights(download=True), {default.meta['_file_size']:.0f} MB.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny = VisionTransformer(64, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)
    return tiny.state_dict()


def published_vivit(*, download: bool = False) -> Path:
    """Google's ViViT-B/16x2 for Kinetics-400 as a file of weights with its settings beside it.

    Otherwise that of a tiny ViViT in the same layout with random weights, and one line that says so.
    download: fetch it, 356 MB, to the folder `vivit-b` next to the data; once it is there it is used.
    Raises CheckpointError where the download fails.
    """
    data = os.environ.get("VIVIT_EDU_DATA") or (kept() or checkout()) / "data"
    root = given_folder("VIVIT_EDU_DATA", data) / "vivit-b"
    if download:
        fetch_vivit(root)
    there = [root / name for name in WEIGHTS if (root / name).is_file()]
    if there and (root / SETTINGS[0]).is_file():
        return there[0]
    print("ViViT-B is not on this machine. A tiny ViViT of random weights in its layout takes its place, so its")
    print("answers mean nothing; for the real one: published_vivit(download=True), 356 MB.")
    folder = Path(tempfile.mkdtemp(prefix="tiny-vivit-"))
    write_tiny_vivit(folder)
    return folder / WEIGHTS[0]


def fetch_vivit(folder: Path) -> None:
    """Downloads Google's ViViT-B to a folder. Raises CheckpointError where that is impossible."""
    import pooch

    def get(name: str) -> None:
        pooch.retrieve(f"{PUBLISHED}/{name}", None, fname=name, path=folder, progressbar=True)

    try:
        for name in SETTINGS:
            get(name)
        try:
            get(WEIGHTS[0])
        except OSError:  # requests' errors are OSErrors
            get(WEIGHTS[1])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"ViViT-B cannot be downloaded from {PUBLISHED}: {error}") from error


def write_tiny_vivit(folder: Path, *, seed: int = 0) -> ViViT:
    """Writes a small Model 1 with random weights as Hugging Face publishes a ViViT; returns the model, in eval mode.

    The folder gets model.safetensors, config.json and preprocessor_config.json, with the names, settings and
    preparation of Google's ViViT-B, but clips of 8 frames of 32×32 and the few labels of ACTIONS.
    """
    from safetensors.torch import save_file

    options = {"dim": 24, "depth": 2, "heads": 4, "mlp_dim": 48, "pool": "cls", "activation": "gelu_tanh"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape, tubelet = (3, 8, 32, 32), (2, 8, 8)
        model = build_model("spacetime", clip_shape=shape, num_classes=len(ACTIONS), tubelet=tubelet, **options)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    config = {
        "architectures": ["VivitForVideoClassification"],
        "model_type": "vivit",
        "num_channels": 3,
        "num_frames": 8,
        "image_size": 32,
        "tubelet_size": list(tubelet),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "hidden_act": "gelu_fast",
        "layer_norm_eps": 1e-06,
        "qkv_bias": True,
        "id2label": dict(enumerate(ACTIONS)),
        "label2id": {name: k for k, name in enumerate(ACTIONS)},
    }
    preparation = {
        "do_resize": True,
        "size": {"shortest_edge": 36},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 127.5,
        "offset": True,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hugging_face_names(model), folder / WEIGHTS[0], metadata={"format": "pt"})
    for name, content in zip(SETTINGS, (config, preparation)):
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return model.eval()


def hugging_face_names(model: ViViT) -> dict[str, torch.Tensor]:
    """A Model 1's weights under the names of Hugging Face's published ViViT."""
    theirs = {ours: name for name, ours in reversed(HUGGING_FACE.table.items())}
    state = {}
    for name, tensor in model.state_dict().items():
        parts = dict(zip(("q", "k", "v"), tensor.chunk(3))) if ".qkv." in name else {"qkv": tensor}
        for part, value in parts.items():
            stem, leaf = name.replace("qkv", part), ""
            if stem.endswith((".weight", ".bias")):
                stem, leaf = stem.rsplit(".", 1)
            number = next((word for word in stem.split(".") if word.isdigit() and "blocks" in stem), "")
            key = theirs[stem.replace(f"blocks.{number}.", "blocks.*.") if number else stem].replace("*", number)
            prefix = "" if key == "classifier" else "vivit."
            state[f"{prefix}{key}{'.' if leaf else ''}{leaf}"] = value.clone().contiguous()
    return state


def a_clip(predictor: Predictor, path: Path | str | None = None) -> torch.Tensor:
    """A clip of the predictor's shape, [1, C, T, H, W]: the reader's own video file, or a moving shape of ours."""
    if path is not None:
        return read_clips(Path(path).expanduser(), predictor)
    shape = load_volumes("movingshapes").test.clips[0, 0].numpy()  # [T, H, W]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "moving_shape.npy"
        np.save(file, shape)
        return read_clips(file, predictor)


def top(predictor: Predictor, clip: torch.Tensor, count: int = 5) -> list[tuple[str, float]]:
    """The most probable classes of a clip [1, C, T, H, W], with their probabilities."""
    best = predictor(clip).topk(min(count, len(predictor.class_names)))
    return [(predictor.class_names[k], p) for p, k in zip(best.values.tolist(), best.indices.tolist())]


def seen_in(predictor: Predictor, clip: torch.Tensor) -> Figure:
    """A clip and, over it, what the cls token attends to in the last layer, mean over the heads."""
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1, 1) for values in (predictor.mean, predictor.std))
    values = clip / 255 if clip.dtype == torch.uint8 else clip
    model = predictor.model.cpu()
    last = attention_maps(model, (values - mean) / std)[-1].weights  # [1, heads, 1 + N, 1 + N]
    shares = last[:, :, 0, 1:].mean(dim=1)
    scores = rearrange(shares / shares.sum(dim=1, keepdim=True), "b (nt s) -> b nt s", nt=model.grid[0])
    name, probability = top(predictor, clip, 1)[0]
    pictures = (255 * values).round().clamp(0, 255).to(torch.uint8)
    return clips_figure(model, pictures, scores, [f"named {name}, {probability:.0%}"])
