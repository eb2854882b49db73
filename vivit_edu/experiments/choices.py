"""What was asked for on the command line, as a recipe: `--set FIELD=VALUE` reaches each field and each option.

--set lr=1e-3                 a field of the recipe
--set shift=0.05              a strength of its augmentation
--set tubelet=2,8,8           an option of the model
"""

from __future__ import annotations

import ast
from argparse import Namespace
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

from ..augment import Augmentation
from ..errors import ConfigError
from ..models import build_model, model_class, model_options
from ..support.checkpoint import plain, read_newest
from ..support.devices import cpu_has_bfloat16
from ..training import Recipe
from .runs import check_memory, read_run

WORDS = {
    bool: "true or false",
    int: "a whole number up to a million",
    float: "a number",
    tuple: "numbers with commas, such as 4,4,4",
}
SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SHORT = {"batch_size": "--batch-size", "lr": "--lr", "tubelet": "--tubelet", "bfloat16": "--bfloat16"}
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
    remarks = []
    preset = options.preset or ("full" if device == "cuda" else "quick")
    changes: dict[str, object] = {"model": options.model, "epochs": options.epochs, "bfloat16": options.bfloat16}
    if device == "cpu" and options.bfloat16 is None and cpu_has_bfloat16():
        changes["bfloat16"] = True
    changes |= pretrained_changes(options, Recipe.preset(preset))
    recipe = Recipe.preset(preset, **{name: value for name, value in changes.items() if value is not None})
    settings = given_settings(options)
    recipe = with_settings(recipe, settings)
    given = {name.rpartition(".")[2] for name, _ in settings}
    if recipe.bfloat16 and options.bfloat16 is None and "bfloat16" not in given:
        remarks.append("Training in bfloat16, for which this CPU has instructions; --no-bfloat16 trains in float32.")
    options = with_defaults(options, size=28, seed=0)
    shape = clip_shape(options)
    if "tubelet" not in given:
        recipe, remark = recipe.fitted(shape)
        remarks += [remark] if remark else []
    try_out(recipe, shape)
    extra: dict[str, object] = {"preset": preset}
    if options.videos:
        extra["videos"] = {"folder": options.videos, "frames": shape[1], "seed": options.seed}
    return options, recipe, extra, remarks


def with_defaults(options: Namespace, **defaults: object) -> Namespace:
    """The options with defaults in the place of what is None."""
    return Namespace(**vars(options) | {k: v for k, v in defaults.items() if getattr(options, k) is None})


def clip_shape(options: Namespace) -> tuple[int, int, int, int]:
    """(C, T, H, W) of the clips that these options will load."""
    if options.videos:
        return 3, options.frames or options.size, options.size, options.size
    return 1, options.size, options.size, options.size


def try_out(recipe: Recipe, shape: tuple[int, int, int, int]) -> None:
    """Builds the recipe's model for clips of this shape and throws it away.

    Raises ConfigError where it cannot be built, or does not fit into the memory.
    """
    import torch

    with torch.device("meta"):  # shapes alone: no memory, no time
        model = build_model(recipe.model, clip_shape=shape, num_classes=2, **recipe.options)
    check_memory(model, shape, 1)


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
        extra["videos"] = videos | {"folder": chosen["videos"]}
    return Namespace(**chosen), recipe, extra, remarks


def refuse(out: str, option: str, asked: object, was: object) -> None:
    """ConfigError: a run that goes on is what it was."""
    before = "has none" if was is None or was == "" else f"has {was}"
    raise ConfigError(
        f"{option} {asked} contradicts the run in {out}, which {before}: a run goes on as it was started. "
        "Leave the option out, or start another run in another folder"
    )


def moved_or_same(now: str, then: str) -> bool:
    """Whether the folder of videos is the one of before, or that one is gone and may have been moved here."""
    return not Path(then).expanduser().is_dir() or same_file(now, then)


def same_file(now: str, then: str) -> bool:
    """Whether two paths, relative or not, lead to the same place."""
    return Path(now).expanduser().resolve() == Path(then).expanduser().resolve()


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
