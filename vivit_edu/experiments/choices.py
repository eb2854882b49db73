"""What was asked for on the command line, as a recipe: `--set FIELD=VALUE` reaches each field and each option.

--set lr=1e-3                 a field of the recipe
--set shift=0.05              a strength of its augmentation
--set tubelet=2,8,8           an option of the model
"""

from __future__ import annotations

import ast
import math
import os
from argparse import Namespace
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..augment import Augmentation
from ..data import SIZES
from ..errors import ConfigError
from ..models import build_model, is_vivit, model_class, model_options
from ..support.checkpoint import plain, read_newest
from ..support.devices import cpu_has_bfloat16
from ..support.memory import usable_memory
from ..training import Recipe
from .runs import check_memory, memory_needed, read_run

if TYPE_CHECKING:
    from torch import nn

WORDS = {
    bool: "true or false",
    int: "a whole number up to a million",
    float: "a number",
    tuple: "numbers with commas, such as 4,4,4",
}
SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SHORT = {"batch_size": "--batch-size", "lr": "--lr", "tubelet": "--tubelet", "bfloat16": "--bfloat16"}
LARGE = 96  # pixels of a side: smaller clips take the preset's tubelets
LARGE_TUBELET = (2, 16, 16)
MOST_TOKENS = 1024  # for which a model over all of them at once is chosen unasked
LEAST_STEPS = 4  # of an epoch
PROGRAM_MEMORY = 1 << 29  # bytes that Python, torch and what they have loaded take on a CPU
STEP_MEMORY = 1.5  # what a training step takes, in parts of `memory_needed`
OWN = {"model": "--model", "pretrained": "--pretrained", "options": "", "augmentation": ""}


def split_setting(text: str) -> tuple[str, str]:
    """FIELD and VALUE of "FIELD=VALUE". Raises ConfigError for a text of another form."""
    name, sign, value = text.partition("=")
    if not (name.strip() and sign and value.strip()):
        raise ConfigError(f"--set {text!r} is not of the form FIELD=VALUE: write, for example, --set lr=1e-3")
    return name.strip().replace("-", "_"), value.strip()


def parse_value(name: str, text: str, default: object) -> object:
    """The value of a field, of the type that its default has. Raises ConfigError, naming the field, for another."""
    kind = type(default)
    if kind is str:
        return text
    if kind is bool and text.lower() in SWITCH:
        return SWITCH[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            value = text
    if type(value) is not kind or (kind is int and abs(value) > 10**6):
        raise ConfigError(f"{name}={text} was given: expected {WORDS[kind]}")
    return value


def defaults_of(kind: type, without: tuple[str, ...] = ()) -> dict[str, object]:
    """{name: default} of a dataclass's fields."""
    found = {field.name: field.default for field in fields(kind) if field.name not in without}
    return {name: default for name, default in found.items() if default is not MISSING}


def option_defaults(model: str) -> dict[str, object]:
    """{name: default} of a model's options."""
    known = model_options(model)
    return {name: default for name, default in defaults_of(model_class(model).configured_by).items() if name in known}


def with_settings(recipe: Recipe, settings: list[tuple[str, str]]) -> Recipe:
    """The recipe with settings [(FIELD, VALUE), …] as they were typed; the last one of a field counts.

    FIELD: a field of `Recipe`, of its augmentation, or an option of its model, also as "augmentation.shift" and
    "options.depth". Raises ConfigError where there is no such field, or its value is of another type or range.
    """
    places = {
        "recipe": defaults_of(Recipe, tuple(OWN)),
        "augmentation": defaults_of(Augmentation),
        "options": option_defaults(recipe.model),
    }
    changes: dict[str, dict[str, object]] = {place: {} for place in places}
    for name, text in settings:
        if OWN.get(name):
            raise ConfigError(f"--set {name}={text} was given: {name} has an option of its own, {OWN[name]}")
        prefix, dot, rest = name.partition(".")
        found = [place for place, known in places.items() if (rest if dot else name) in known]
        if dot:
            name, found = rest, [place for place in found if place == prefix]
        if not found:
            everything = "; ".join(f"of the {place}: {', '.join(known)}" for place, known in places.items())
            raise ConfigError(f"--set knows no field {prefix + dot + rest if dot else name!r}; there are, {everything}")
        changes[found[0]][name] = parse_value(name, text, places[found[0]][name])
    augmentation = replace(recipe.augmentation, **changes["augmentation"])
    options = recipe.options | changes["options"]
    return replace(recipe, **changes["recipe"], augmentation=augmentation, options=options)


def all_fields(recipe: Recipe) -> dict[str, object]:
    """{name: value} of a recipe's fields, its augmentation's strengths and its model's options side by side."""
    values = asdict(recipe)
    options, augmentation = values.pop("options"), values.pop("augmentation")
    return values | {f"augmentation.{name}": value for name, value in augmentation.items()} | options


def given_settings(options: Namespace) -> list[tuple[str, str]]:
    """What --lr, --batch-size, --tubelet and --set ask for, in that order."""
    short = {"lr": options.lr, "batch_size": options.batch_size, "tubelet": options.tubelet}
    return [(name, text) for name, text in short.items() if text is not None] + [
        split_setting(text) for text in options.settings
    ]


# ---- a new run


def started(options: Namespace, device: str) -> tuple[Namespace, Recipe, dict[str, object], list[str]]:
    """A new run as `train` was asked for it, tried on the shape of its clips before any data are read.

    options: as parsed; what was not given is None. device: "cpu", "cuda" or "mps".
    Returns (options with the defaults filled in, the recipe, further arguments of `train_run`, remarks to print).
    Raises ConfigError where something does not fit together.
    """
    if options.frames and not options.videos:
        raise ConfigError("--frames says how many frames of each video are taken: give --videos DIR as well")
    if options.root and options.videos:
        raise ConfigError("--root names the folder of a data set's files, --videos that of your own: leave --root out")
    for name in () if options.videos else ("val", "test", "clips"):
        if getattr(options, name, None):
            raise ConfigError(f"--{name} is of your own videos: give --videos as well")
    options = with_defaults(options, size=28, seed=0)
    if options.size not in SIZES and not options.videos:
        raise ConfigError(f"--size {options.size}: the volumes come in the sizes 28 and 64; videos come in any")
    shape, settings = clip_shape(options), given_settings(options)
    given = {name.rpartition(".")[2] for name, _ in settings}
    remarks = []
    preset = options.preset or ("full" if device == "cuda" else "quick")
    changes: dict[str, object] = {"model": options.model, "epochs": options.epochs, "bfloat16": options.bfloat16}
    large = bool(options.videos) and options.size >= LARGE and "tubelet" not in given
    if large and options.model is None and (tokens := math.prod(shape[1:]) // math.prod(LARGE_TUBELET)) > MOST_TOKENS:
        changes["model"] = "factorised_encoder"
        remarks.append(
            f"Model 2 (factorised_encoder): its attention is over space and then over time, not over all of {tokens} "
            "tokens at once; --model chooses another."
        )
    if device == "cpu" and options.bfloat16 is None and cpu_has_bfloat16():
        changes["bfloat16"] = True
    changes |= pretrained_changes(options, Recipe.preset(preset))
    recipe = Recipe.preset(preset, **{name: value for name, value in changes.items() if value is not None})
    recipe = with_settings(recipe, settings)
    if recipe.bfloat16 and options.bfloat16 is None and "bfloat16" not in given:
        remarks.append("Training in bfloat16, for which this CPU has instructions; --no-bfloat16 trains in float32.")
    if large:
        recipe, more = for_large_clips(recipe, shape)
        remarks += more
    elif "tubelet" not in given:
        recipe, remark = recipe.fitted(shape)
        remarks += [remark] if remark else []
    try_out(recipe, shape)
    if options.videos and "batch_size" not in given:
        recipe, more = for_memory(recipe, shape, device)
        remarks += more
    extra: dict[str, object] = {"preset": preset}
    if options.videos:
        options = with_defaults(options, frames=shape[1])
        wanted = {name: getattr(options, name, None) for name in ("val", "test", "clips")}
        extra["videos"] = {"folder": options.videos, "frames": shape[1], "seed": options.seed}
        extra["videos"] |= {name: value for name, value in wanted.items() if value is not None}
    return options, recipe, extra, remarks


def for_large_clips(recipe: Recipe, shape: tuple[int, int, int, int]) -> tuple[Recipe, list[str]]:
    """The recipe with tubelets of 2×16×16 voxels, the paper's, or the nearest that tile clips (C, T, H, W), and a line
    that says so. A CNN stays as it is."""
    if not is_vivit(recipe.model):
        return recipe, []
    before = recipe.options.get("tubelet", option_defaults(recipe.model)["tubelet"])
    recipe, _ = replace(recipe, options=recipe.options | {"tubelet": LARGE_TUBELET}).fitted(shape)
    tubelet = recipe.options["tubelet"]
    tokens = math.prod(-(-size // t) for size, t in zip(shape[1:], tubelet))
    clip, now, was = ("×".join(map(str, sizes)) for sizes in (shape[1:], tubelet, before))
    padded = recipe.options.get("remainder") == "pad"
    rest = ', and remainder="pad": zeros at the end where they do not tile the clip' * padded
    return recipe, [f"Clips of {clip}: tubelets of {now} in place of {was}, {tokens} tokens{rest}."]


def for_memory(recipe: Recipe, shape: tuple[int, int, int, int], device: str) -> tuple[Recipe, list[str]]:
    """The recipe with batches that are halved until a training step fits into the memory, and a line that says so.

    On a CPU a step took 1.2 to 1.5 times what `memory_needed` counts (Models 1 and 2, clips of 16×112×112 and
    32×224×224). It may take half of the memory that the program itself leaves; of a GPU's, where this was not measured,
    half of it.
    """
    memory = usable_memory()
    if device == "cuda":
        import torch

        memory = torch.cuda.get_device_properties(0).total_memory
    elif memory:
        memory = max(1, memory - PROGRAM_MEMORY)
    model, size = built_for(recipe, shape), recipe.batch_size
    while memory and size > 1 and STEP_MEMORY * memory_needed(model, shape, size) > memory / 2:
        size //= 2
    if size == recipe.batch_size:
        return recipe, []
    needed = STEP_MEMORY * memory_needed(model, shape, size) / 2**30
    said = f"Batches of {size} clips in place of {recipe.batch_size}: a step takes about {needed:.2g} GiB."
    return replace(recipe, batch_size=size), [said]


def for_few_clips(options: Namespace, recipe: Recipe, clips: int) -> tuple[Recipe, list[str]]:
    """The recipe of a new run on videos with batches that are halved until an epoch of so many clips has four steps,
    and a line that says so. A batch size that was asked for stays as it is."""
    size = recipe.batch_size
    if options.resume or not options.videos or "batch_size" in dict(given_settings(options)):
        return recipe, []
    while size > 2 and clips // size < LEAST_STEPS:
        size //= 2
    if size == recipe.batch_size:
        return recipe, []
    said = f"Batches of {size} clips in place of {recipe.batch_size}, for {clips} clips to train on."
    return replace(recipe, batch_size=size), [said]


def with_defaults(options: Namespace, **defaults: object) -> Namespace:
    """The options with defaults in the place of what is None."""
    return Namespace(**vars(options) | {k: v for k, v in defaults.items() if getattr(options, k) is None})


def clip_shape(options: Namespace) -> tuple[int, int, int, int]:
    """(C, T, H, W) of the clips that these options will load."""
    if options.videos:
        frames = options.size if options.size < LARGE else 16 if options.size < 192 else 32
        return 3, options.frames or frames, options.size, options.size
    return 1, options.size, options.size, options.size


def try_out(recipe: Recipe, shape: tuple[int, int, int, int]) -> None:
    """Builds the recipe's model for clips of this shape and throws it away.

    Raises ConfigError where it cannot be built, or does not fit into the memory.
    """
    check_memory(built_for(recipe, shape), shape, 1)


def built_for(recipe: Recipe, shape: tuple[int, int, int, int]) -> nn.Module:
    """The recipe's model for clips of this shape, without weights: no memory, no time."""
    import torch

    with torch.device("meta"):
        return build_model(recipe.model, clip_shape=shape, num_classes=2, **recipe.options)


def pretrained_changes(options: Namespace, preset: Recipe) -> dict[str, object]:
    """What --pretrained and --inflate change in a recipe; the model takes the sizes that the weights have."""
    if not options.pretrained:
        if options.inflate:
            raise ConfigError("--inflate says what becomes of pretrained filters: give --pretrained WEIGHTS as well")
        if options.heads:
            raise ConfigError(
                "--heads says how many heads pretrained weights have: give --pretrained WEIGHTS as well, or set the "
                f"model's own number by --set heads={options.heads}"
            )
        return {}
    from ..pretrained import options_for

    sizes = options_for(options.pretrained, heads=options.heads)
    return {"pretrained": options.pretrained, "inflate": options.inflate, "options": preset.options | sizes}


# ---- a run that goes on


def resumed(options: Namespace, device: str) -> tuple[Namespace, Recipe, dict[str, object], list[str]]:
    """The run in --out as it was started. Arguments and what is returned: as for `started`.

    Raises ConfigError where an option was given that contradicts the run, naming it and both values. Only --epochs may
    ask for something else: more of them.
    """
    if not options.out:
        raise ConfigError("--resume needs --out RUN: the folder of the run to go on with")
    run = read_run(options.out)
    recipe, videos, settings = Recipe.from_dict(run["recipe"]), run.get("videos") or {}, given_settings(options)
    same = {
        "DATASET": (options.name, run["dataset"]),
        "--size": (options.size, run["size"]),
        "--seed": (options.seed, run["seed"]),
        "--frames": (options.frames, videos.get("frames")),
        "--clips": (getattr(options, "clips", None), videos.get("clips")),
        "--preset": (options.preset, run.get("preset")),
        "--model": (options.model, recipe.model),
        "--root": (options.root if videos else None, None),
        "--inflate": (options.inflate, recipe.inflate),
        "--heads": (options.heads, recipe.options.get("heads")),
        "--bfloat16": (options.bfloat16, recipe.bfloat16),
    }
    for option, (asked, was) in same.items():
        if asked is not None and asked != was:
            refuse(options.out, option, asked, was)
    if options.videos and not (videos and moved_or_same(options.videos, videos["folder"])):
        refuse(options.out, "--videos", options.videos, videos.get("folder"))
    for name in ("val", "test"):
        place = getattr(options, name, None)
        if place and not (name in videos and moved_or_same(place, videos[name])):
            refuse(options.out, f"--{name}", place, videos.get(name))
    if options.pretrained and not (recipe.pretrained and same_file(options.pretrained, recipe.pretrained)):
        refuse(options.out, "--pretrained", options.pretrained, recipe.pretrained)
    asked, ours = with_settings(recipe, settings), option_defaults(recipe.model) | all_fields(recipe)
    for name, value in all_fields(asked).items():
        if name != "epochs" and plain(value) != plain(ours[name]):
            refuse(options.out, SHORT.get(name, f"--set {name}"), value, ours[name])
    epochs = options.epochs if options.epochs is not None else asked.epochs
    recipe, remarks = longer(recipe, epochs, options.out)
    chosen = vars(options) | {"name": run["dataset"], "size": run["size"], "seed": run["seed"]}
    chosen["root"] = options.root or run["root"]
    extra: dict[str, object] = {"preset": run.get("preset")}
    if videos:
        chosen |= {"videos": options.videos or videos["folder"], "frames": videos["frames"]}
        chosen |= {name: getattr(options, name, None) or videos.get(name) for name in ("val", "test", "clips")}
        extra["videos"] = videos | {"folder": chosen["videos"]}
        extra["videos"] |= {name: chosen[name] for name in ("val", "test") if chosen[name]}
    return Namespace(**chosen), recipe, extra, remarks


def refuse(out: str, option: str, asked: object, was: object) -> None:
    """ConfigError: a run that goes on is what it was."""
    before = "has none" if was is None or was == "" else f"has {was}"
    raise ConfigError(
        f"{option} {asked} contradicts the run in {out}, which {before}: a run goes on as it was started. "
        "Leave the option out, or start another run in another folder"
    )


def moved_or_same(now: str, then: str) -> bool:
    """Whether the folder or list of videos is the one of before, or that one is gone and may have been moved here."""
    return not Path(then).expanduser().exists() or same_file(now, then)


def same_file(now: str, then: str) -> bool:
    """Whether two paths, relative or not, lead to the same place."""
    return os.path.realpath(Path(now).expanduser()) == os.path.realpath(Path(then).expanduser())


def longer(recipe: Recipe, epochs: int, out: str) -> tuple[Recipe, list[str]]:
    """The recipe with so many epochs, and what there is to say about it, such as that all of them are done.

    Raises ConfigError for fewer epochs than it has.
    """
    if epochs == recipe.epochs:
        newest = read_newest(out)
        if newest is None or newest["epochs_done"] < epochs:
            return recipe, []
        return recipe, [
            f"This run is finished: its {epochs} epochs are done, and its figures are made again. To train it for "
            "longer, ask for more --epochs."
        ]
    if epochs < recipe.epochs:
        raise ConfigError(
            f"--epochs {epochs} contradicts the run in {out}, which has {recipe.epochs}: a run can be made longer, not "
            "shorter, for its learning rate has followed the longer schedule. Start another run in another folder"
        )
    remark = (
        f"Made longer, from {recipe.epochs} to {epochs} epochs: the learning rate goes on where a run of {epochs} "
        "epochs would be, so it may rise again. The result is not that of such a run from the start."
    )
    return replace(recipe, epochs=epochs), [remark]
