"""Whether weights and a model go together: sizes, heads, grids, and what is not known of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from ..errors import CheckpointError, ConfigError
from ..support.options import check_whole
from .recognise import Recognised

if TYPE_CHECKING:
    from ..vivit import ViViT

# weights do not tell the number of heads, but all image transformers published with these widths have these
USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
LARGEST_EPS = 1e-5  # LayerNorms with less than this change nothing that float32 would keep


def sizes(source: Recognised, heads: int | None = None) -> dict[str, object]:
    """What a model must have in common with these weights, as options of `build_model`.

    heads: as for `load_pretrained`; where it is None and the weights do not say it, it is the usual number for their
    width, and where there is none, it is left out. Raises CheckpointError where the weights contradict themselves.
    """
    tensors, of_video, stated = source.tensors, source.of_video, source.stated
    dim = tensors["positions"].shape[-1]
    found = {
        "depth": depth(tensors, "encoder") or depth(tensors, "spatial_encoder"),
        "dim": dim,
        "mlp_dim": next(len(tensor) for name, tensor in tensors.items() if name.endswith("mlp.0.weight")),
    }
    for name, value in found.items():
        if stated.get(name, value) != value:
            raise CheckpointError(
                f"{stated['where']} says {name} {stated[name]}, but the weights have {value}: it belongs to others"
            )
    if heads is not None:
        check_whole("heads", heads, 1)
    known = heads_stated(source) or heads
    if known and dim % known:
        error = ConfigError if known == heads else CheckpointError
        raise error(f"heads={known} do not share the width {dim} of these weights evenly")
    if known or dim in USUAL_HEADS:
        found["heads"] = known or USUAL_HEADS[dim]
    if "activation" in stated:
        found["activation"] = stated["activation"]
    if of_video:
        found["pool"] = "cls" if "cls" in tensors else "mean"
    if of_video and "Model 2" in source.layout.models:
        found["temporal_depth"] = depth(tensors, "temporal_encoder")
    return found


def depth(tensors: dict, encoder: str) -> int:
    """The number of blocks of an encoder."""
    return sum(name.startswith(f"{encoder}.") and name.endswith("norm_mlp.weight") for name in tensors)


def heads_stated(source: Recognised) -> int | None:
    """The number of heads that tensors' shapes or the config state, or None.

    Raises CheckpointError where two attentions have different numbers, and where shapes and config disagree.
    """
    seen = {heads: name.rpartition(".")[0] for name, heads in reversed(source.heads.items())}
    if len(seen) > 1:
        both = " and ".join(f"{heads} heads in {name.rpartition('.')[0]}" for heads, name in sorted(seen.items()))
        raise CheckpointError(f"the weights have {both}; a model here has the same number of heads throughout")
    shown, said = next(iter(seen), None), source.stated.get("heads")
    if shown and said and shown != said:
        raise CheckpointError(
            f"{source.stated['where']} says {said} heads, but the shapes of the weights show {shown}: "
            "it belongs to others"
        )
    return shown or said


def check_given_heads(source: Recognised, heads: int | None) -> None:
    """Refuses a given number of heads that contradicts the weights."""
    stated = heads_stated(source)
    if stated and heads and stated != heads:
        raise ConfigError(f"heads={heads} was given, and the weights say {stated}: leave it out")


def compare_with(model: ViViT, source: Recognised, heads: int | None = None) -> list[str]:
    """Refuses weights of another kind or size than the model's, naming both.

    heads: as for `load_pretrained`. Returns notes: what the weights do not say and what is assumed in its place.
    Raises CheckpointError or ConfigError.
    """
    config, ours = model.config, model.title.partition(",")[0]
    whose = source.layout.models
    if source.of_video and ours not in whose:
        raise CheckpointError(f"these weights are of {' or '.join(whose)} and go into no other; this is {model.title}")
    theirs = {"heads": config.heads} | sizes(source, heads)
    differing = [option for option in theirs if theirs[option] != getattr(config, option)]
    if differing:
        both = ", ".join(f"{option} {theirs[option]!r} and {getattr(config, option)!r}" for option in differing)
        guess = (
            ""
            if heads or heads_stated(source) or "heads" not in differing
            else " (heads: the usual number for this width; where the weights have another, say heads=...)"
        )
        options = ", ".join(f"{option}={theirs[option]!r}" for option in differing)
        raise CheckpointError(f"weights and model differ in {both}{guess}: build the model with {options}")
    compare_eps(model, source)
    check_given_heads(source, heads)
    notes = [*about_heads(model, source, heads), *about_activation(model, source)]
    return [*notes, *(about_video(model, source) if source.of_video else about_cls(model, source))]


def compare_eps(model: ViViT, source: Recognised) -> None:
    """Refuses a stated epsilon of the LayerNorms that is not the model's, unless both are too small to matter."""
    theirs = source.stated.get("eps")
    ours = next(module.eps for module in model.modules() if isinstance(module, nn.LayerNorm))
    if theirs is not None and theirs != ours and max(theirs, ours) > LARGEST_EPS:
        raise CheckpointError(
            f"{source.stated['where']} says layer_norm_eps={theirs:g}, and the model's LayerNorms have eps={ours:g}: "
            "set their eps to the weights' before loading"
        )


def about_heads(model: ViViT, source: Recognised, heads: int | None) -> list[str]:
    """Where the number of heads comes from, unless the weights say it."""
    stated, ours = heads_stated(source), model.config.heads
    if stated:
        return []
    if heads:
        return [f"the weights do not say their number of heads: taken to be {heads}, as given"]
    if model.config.dim in USUAL_HEADS:
        return [
            f"the weights do not say their number of heads: taken to be {ours}, the usual number for this width; "
            "where they have another, say heads=..."
        ]
    return [f"the weights do not say their number of heads: make sure that it is {ours}"]


def about_activation(model: ViViT, source: Recognised) -> list[str]:
    """Whether the model has the GELU that weights of this layout usually have, unless they say which."""
    usual = "gelu_tanh" if source.of_video else "gelu"
    if "activation" in source.stated or model.config.activation == usual:
        return []
    return [f"such weights are usually trained with activation={usual!r}, not {model.config.activation!r}"]


def about_normalisation(source: Recognised) -> str:
    """What is done to clips in [0, 1] before such weights see them, where that is stated; else ""."""
    if "normalised" not in source.stated:
        return ""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in source.stated["normalised"])
    return (
        f"they expect (clip - mean) / std of clips in [0, 1], mean {mean} and std {std}: normalise the clips, "
        "or fold it into the filters"
    )


def about_cls(model: ViViT, source: Recognised) -> list[str]:
    """What becomes of an image transformer's cls token and of a head that may not have read it."""
    if "cls" not in source.tensors:
        return []
    read = source.stated.get("pool", "cls" if source.layout.reads_cls else None)
    if model.config.pool == "mean":
        says = {"cls": "their head read it", "mean": "their head did not read it", None: "they do not say who read it"}
        return [f"the weights have a cls token ({says[read]}); this model has none and averages the other tokens"]
    if "head.weight" not in source.tensors or read == "cls":
        return []
    if read == "mean":
        return ["their head read the mean of the other tokens; in this model it reads the cls token"]
    return ["the weights do not say whether their head read the cls token or averaged the other tokens: taken as cls"]


def about_video(model: ViViT, source: Recognised) -> list[str]:
    """What a ViViT's weights do not say: which model, the order of its attentions, the grid of its positions.

    Raises CheckpointError where as many positions are stated to lie in another grid than the model's.
    """
    notes, stated = [], source.stated
    grid = model.embedding.grid
    if len(source.layout.models) > 1:
        theirs = " and ".join(source.layout.models)
        notes.append(f"weights of {theirs} look the same: make sure that these are {model.title.partition(',')[0]}'s")
    if source.layout.models == ("Model 3",):
        notes.append(
            "the weights do not say in which order they attend: this model attends over space first; the authors' "
            "code attends over time first unless its attention_order is 'space_time'"
        )
    if {"frames", "image_size"} <= stated.keys():
        tubelet = source.tensors["embedding.projection.weight"].shape[2:]
        if "patch" in stated and tuple(tubelet)[-len(stated["patch"]) :] != stated["patch"]:
            refuse_patch(source, tubelet)
        clip = (stated["frames"], *stated["image_size"])
        theirs = tuple(size // step for size, step in zip(clip, tubelet))
        if theirs != grid and math.prod(theirs) == math.prod(grid):
            shape = (model.config.clip_shape[0], *clip)
            raise CheckpointError(
                f"{stated['where']} says clips of {_by(clip)}, a grid of {_by(theirs)} tubelets; the model's grid is "
                f"{_by(grid)}: build the model with clip_shape={shape}"
            )
    else:
        axes = grid[1:] if model.positions_over == "space" else grid
        notes.append(f"the weights do not say in which grid their positions lie: taken as {_by(axes)}, the model's own")
    return notes


def image_grid(source: Recognised, grid: Sequence[int]) -> tuple[int, tuple[int, int], str]:
    """How an image transformer's positions lie: (tokens before the patches that have one, (n_h, n_w), a note or "").

    grid: (n_h, n_w) of the model. A stated image size decides; otherwise as many places as the model has are taken to
    lie as the model's, any other number in a square. Raises CheckpointError where neither is possible.
    """
    total, filters = source.tensors["positions"].shape[1], source.tensors["embedding.projection.weight"]
    tokens = ("cls" in source.tensors) + ("dist" in source.tensors)
    if source.tensors["positions"].ndim != 3:
        raise CheckpointError("the positions of an image transformer have three axes [1, N, D], these have four")
    stated, patch = source.stated, tuple(filters.shape[-2:])
    if stated.get("patch", patch)[-2:] != patch:
        refuse_patch(source, patch)
    if "image_size" in stated:
        theirs = tuple(size // step for size, step in zip(stated["image_size"], patch))
        if total - math.prod(theirs) not in (0, tokens):
            raise CheckpointError(
                f"{stated['where']} says images of {_by(stated['image_size'])} in patches of {_by(patch)}, which are "
                f"{math.prod(theirs)}, but the weights have {total} positions and {tokens} other tokens: "
                "it belongs to others"
            )
        return total - math.prod(theirs), theirs, ""
    # a cls token may have no position of its own, as in FlexiViT
    candidates = [(tokens, total - tokens), (0, total)]
    alike = [(n, tuple(grid)) for n, places in candidates if places == math.prod(grid)]
    squares = [(n, (math.isqrt(places),) * 2) for n, places in candidates if places > 0 and _is_square(places)]
    if not alike and not squares:
        both = " or ".join(str(places) for _, places in dict.fromkeys(candidates) if places > 0)
        raise CheckpointError(
            f"{both} positions make no square grid of patches, so they cannot be resized: build the model with the "
            "grid of the weights, or put a config.json with their image_size beside the file"
        )
    before, theirs = (alike or squares)[0]
    return before, theirs, f"the weights do not say in which grid their positions lie: taken as {_by(theirs)}"


def refuse_patch(source: Recognised, patch: Sequence[int]) -> None:
    """Raises CheckpointError: the stated size of the patches is not that of the filters."""
    stated = source.stated
    raise CheckpointError(
        f"{stated['where']} says patches of {_by(stated['patch'])}, but the filters are of {_by(patch)}: "
        "it belongs to others"
    )


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _by(numbers: Sequence[int]) -> str:
    """4×9."""
    return "×".join(str(number) for number in numbers)
