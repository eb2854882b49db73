"""The command `vivit-edu`: parses its arguments, calls the package, prints what came of it.

Nothing heavy is imported before a command needs it, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

from .errors import ConfigError, DataError, LostProcessError, VivitEduError
from .models import MODELS
from .support.arguments import Parser, place, positive
from .support.terminal import Mumbling, flush, give_up_output, open_what_is_closed, say, unforeseen

if TYPE_CHECKING:
    from .volumes import Volumes

DATASETS = "one of the six MedMNIST3D sets (organmnist3d, adrenalmnist3d, …), organphantom3d or movingshapes"
FEW_CLIPS = 50  # of a split: below it one clip is more than two points of accuracy
NO_MEMORY = ("out of memory", "can't allocate memory")  # as torch puts it
ROOT_HELP = "folder that holds or gets the data files (default: $VIVIT_EDU_DATA, else data/)"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 for a fault of ours, 2 for bad input, 130 for a run stopped by
    Ctrl-C, 141 where whoever read the output, such as `head`, has seen enough.

    arguments: the words after `vivit-edu`, by default those of the process. Of a process whatever happens is told in
    a message; a caller in Python gets the exception that we did not foresee.
    """
    # Before torch is loaded: threads that wait for each other sleep. By default they spin, and on a busy machine a
    # training step then takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments is None:
        open_what_is_closed()
        sys.stderr = Mumbling(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            options = make_parser().parse_args(arguments)
            options.command(options)
        finally:
            flush()  # here and not when Python ends, where nothing could be said
    except VivitEduError as error:
        # of several processes that fail alike one speaks; that another one is lost, each survivor says
        if os.environ.get("RANK", "0") == "0" or isinstance(error, LostProcessError):
            say(f"vivit-edu: {error}")
        return 2
    except BrokenPipeError:
        give_up_output()
        return 141
    except OSError as error:  # of a path given: too long, a folder in a file's place, not ours to read; a full disk
        say(f"vivit-edu: {error}")
        give_up_output()
        return 2
    except KeyboardInterrupt:
        if arguments is None:  # the process ends, whatever is typed meanwhile
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("\nStopped.")
        return 130
    except Exception as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
            say("vivit-edu: the memory is not enough: take a smaller --batch-size, fewer --frames or a smaller model")
            return 2
        if arguments is not None or os.environ.get("VIVIT_EDU_TRACEBACK"):
            raise
        say(f"vivit-edu: {unforeseen(error)}")
        return 1
    return 0


def tables_there() -> str:
    """The tables of `ablate`, in words."""
    from .experiments.tables import TABLES

    return f"The tables are {', '.join(TABLES)}."


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `command`, the function that runs it."""
    parser = Parser(prog="vivit-edu", description="Train, evaluate and explain video vision transformers.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    commands.type = str  # it is asked of all words that follow, which are for the command's own arguments to refuse

    data = commands.add_parser("data", help="fetch or generate a data set, verify it, show what is in it")
    data.add_argument("name", nargs="?", help=DATASETS + "; by default the one the course uses")
    add_data_options(data)
    data.add_argument("--out", type=place, default="runs", help="folder for the montage (default: runs)")
    data.set_defaults(command=run_data)

    train = commands.add_parser("train", help="train a model; write its metrics and figures to a run folder")
    train.add_argument("name", nargs="?", help=DATASETS + "; by default the one the course uses")
    add_data_options(train, sizes=False)
    train.add_argument(
        "--videos",
        type=place,
        metavar="DIR",
        help="train on video files instead: DIR holds a sub-folder for each class, or folders train, val and test "
        "with these; or it is a list of paths and labels, as CSV or as lines of a path and a label",
    )
    train.add_argument(
        "--val",
        type=place,
        metavar="DIR",
        help="with --videos: a folder or list for validation; without --test, half of its files are the test",
    )
    train.add_argument("--test", type=place, metavar="DIR", help="with --videos: a folder or list for the test")
    train.add_argument("--frames", type=positive, help="of each video (default: as --size; 16 at 112, 32 at 224)")
    train.add_argument(
        "--clips",
        type=positive,
        metavar="N",
        help="clips that do not overlap out of each video (default: 1, the whole of it)",
    )
    train.add_argument("--model", help=f"{', '.join(MODELS)}, torchvision:r3d_18")
    train.add_argument(
        "--preset", choices=("quick", "full"), help="the recipe (default: quick on a CPU, full on a GPU)"
    )
    train.add_argument("--epochs", type=positive, help="instead of the recipe's")
    train.add_argument("--lr", metavar="RATE", help="peak of the learning rate")
    train.add_argument("--batch-size", metavar="N", help="clips in a batch")
    train.add_argument(
        "--tubelet",
        metavar="T,H,W",
        help="a tubelet's voxels, such as 2,8,8 (default: those of the preset, or the nearest that tile the clip)",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        dest="settings",
        help="any other "
        "field of the recipe, strength of its augmentation or option of the model, such as "
        "weight_decay=.1, shift=.05, depth=8; as often as you like",
    )
    train.add_argument(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        help="train in bfloat16 on a CPU (default: where the CPU has instructions for it)",
    )
    train.add_argument("--seed", type=int, help="of weights, order and augmentation (default: 0)")
    train.add_argument("--out", type=place, help="run folder (default: runs/NAME-MODEL-SEED-TIME)")
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, as it was started; with more --epochs it trains for longer: its learning "
        "rate jumps to where a run of that length would be, and falls to 0 at the new end",
    )
    train.add_argument(
        "--pretrained",
        type=place,
        metavar="WEIGHTS",
        help="start from an image transformer: a file (.safetensors, .pt, "
        ".npz; see pretrain) or torchvision:vit_b_16; the model takes its width and depth",
    )
    train.add_argument(
        "--inflate",
        choices=("central", "average", "random"),
        help="what its filters become in a tubelet (default: central)",
    )
    train.add_argument("--heads", type=positive, help="of the pretrained weights, where they do not say it themselves")
    add_device_option(train)
    train.set_defaults(command=run_train, size=None)  # what was not given is told from what was, for --resume

    evaluate = commands.add_parser("evaluate", help="measure a trained model on validation and test split")
    evaluate.add_argument("run", type=place, help="a run folder")
    evaluate.add_argument(
        "--root", type=place, help="folder that holds the data files (default: where training found them)"
    )
    evaluate.add_argument(
        "--views", action="store_true", help="average over shifted and mirrored views of each clip (slower)"
    )
    add_device_option(evaluate)
    evaluate.set_defaults(command=run_evaluate)

    predict = commands.add_parser("predict", help="name what is in videos or volumes, by a trained model")
    predict.add_argument("run", type=place, help="a run folder, or a folder with a published ViViT (Hugging Face)")
    predict.add_argument(
        "files", type=place, nargs="+", metavar="FILE", help="a video, a .npy or .npz volume, a folder"
    )
    predict.add_argument(
        "--views", type=positive, default=1, help="of a video, at different times, averaged (default: 1)"
    )
    predict.add_argument("--top", type=positive, default=5, help="how many classes to name (default: 5)")
    predict.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_device_option(predict)
    predict.set_defaults(command=run_predict)

    ablate = commands.add_parser(
        "ablate", help="train a table of recipes with several seeds, resumably; print mean ± sd", tell=tables_there
    )
    ablate.add_argument("table", help="its name, one of those below")
    ablate.add_argument("name", nargs="?", metavar="DATASET", help=DATASETS + "; by default the one the course uses")
    ablate.add_argument("--root", type=place, help=ROOT_HELP)
    ablate.add_argument(
        "--seeds", type=positive, default=3, metavar="N", help="runs of each row, seeds 0 to N-1 (default: 3)"
    )
    ablate.add_argument("--epochs", type=positive, help="of each run, instead of the table's")
    ablate.add_argument("--bfloat16", action="store_true", help="train in bfloat16 on a CPU, too, where that is faster")
    ablate.add_argument(
        "--out", type=place, help="folder; a table begun there goes on (default: runs/ablate-TABLE-DATASET)"
    )
    add_device_option(ablate)
    ablate.set_defaults(command=run_ablate, size=28)

    record = commands.add_parser(
        "record", help="train the models that the chapters show, resumably; write their weights and figures"
    )
    record.add_argument("names", nargs="*", metavar="NAME", help="of a recorded model (default: all of them)")
    record.add_argument(
        "--seed", type=int, default=0, help="of the run (default: 0, the one that chapters show; others stay in runs/)"
    )
    record.add_argument("--root", type=place, help=ROOT_HELP)
    add_device_option(record)
    record.set_defaults(command=run_record)

    records = commands.add_parser(
        "records", help="which recorded figures are of today's code; with --repeat, make a sample of runs again"
    )
    records.add_argument("--repeat", type=positive, metavar="N", help="make N recorded runs again and compare them")
    records.add_argument("--seed", type=int, help="which runs are drawn (default: the number of the week)")
    records.add_argument(
        "--most-seconds",
        type=positive,
        default=120,
        metavar="S",
        help="of runs that took at most so long (default: 120)",
    )
    records.add_argument(
        "--note", action="store_true", help="write into the records which code made a run again to the digit"
    )
    records.add_argument("--root", type=place, help=ROOT_HELP)
    records.set_defaults(command=run_records)

    bench = commands.add_parser("bench", help="measure what a part costs next to another; print a table")
    bench.add_argument(
        "bench",
        nargs="?",
        help="augment: augmentation of a batch against one training step; pipeline: "
        "augmented batches against a DataLoader; models: all of them side by side; peers: next to "
        "transformers and vit-pytorch; growth: with the number of tokens; start: imports, kernel, chapters; "
        "accuracy: time to the accuracy of Keras' example; gpu: how well a GPU is used, next to other libraries. "
        "Default: all but the last two",
    )
    bench.add_argument(
        "name",
        nargs="?",
        metavar="DATASET",
        help="models: for clips of this set (default: 28³, one channel); accuracy: on this set (default: the phantom)",
    )
    bench.add_argument("--root", type=place, help=ROOT_HELP)
    bench.add_argument(
        "--train", action="store_true", help="models: train each, too, resumably, as `ablate all-models` does"
    )
    bench.add_argument("--seeds", type=positive, default=3, metavar="N", help="with --train (default: 3)")
    bench.add_argument("--epochs", type=positive, help="with --train")
    add_device_option(bench)
    bench.set_defaults(command=run_benches, size=28, table="all-models", bfloat16=False, out=None)

    pretrain = commands.add_parser(
        "pretrain",
        help="train an image transformer on slices of the training volumes, without "
        "their labels; for train --pretrained",
    )
    pretrain.add_argument("name", nargs="?", metavar="DATASET", help=DATASETS + "; by default the one the course uses")
    add_data_options(pretrain)
    pretrain.add_argument(
        "--preset",
        choices=("quick", "full"),
        default="quick",
        help="of the models to start from it: their width, depth and patch size (default: quick)",
    )
    pretrain.add_argument("--epochs", type=positive, help="passes over the training volumes")
    pretrain.add_argument("--seed", type=int, default=0, help="of weights and slices (default: 0)")
    pretrain.add_argument(
        "--out", type=place, metavar="FILE", help="the weights (default: runs/NAME-slices-SEED.safetensors)"
    )
    add_device_option(pretrain)
    pretrain.set_defaults(command=run_pretrain)

    explain = commands.add_parser("explain", help="draw what a trained model looked at in one clip: a figure and a GIF")
    explain.add_argument("run", type=place, help="a run folder")
    explain.add_argument(
        "--sample", type=int, default=0, metavar="K", help="the clip's number in its split (default: 0)"
    )
    explain.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="where the clip is (default: test)"
    )
    explain.add_argument(
        "--method", default="rollout", help="last-layer, rollout (default), relevance, input-gradient or occlusion"
    )
    explain.add_argument(
        "--root", type=place, help="folder that holds the data files (default: where training found them)"
    )
    add_device_option(explain)
    explain.set_defaults(command=run_explain)

    notebooks = commands.add_parser(
        "notebooks", help="execute the course's notebooks, check them, make the student ones"
    )
    notebooks.add_argument("--check", action="store_true", help="only check: execute and write nothing")
    notebooks.add_argument("--only", metavar="03,05", help="these chapters only")
    notebooks.add_argument("--force", action="store_true", help="execute also what has not changed")
    notebooks.add_argument("--repo", metavar="URL", help="write this address of the repository into all badges")
    notebooks.add_argument(
        "--stamp", action="store_true", help="only note in the README that all ran whole today (CI does)"
    )
    notebooks.set_defaults(command=run_notebooks)

    classroom = commands.add_parser("classroom", help="lay out an nbgrader course: assignments, configuration, README")
    classroom.add_argument(
        "folder", type=place, metavar="DIR", help="a new folder, or a course made here before, to renew its sources"
    )
    classroom.add_argument("--chapters", metavar="03,05", help="these chapters only")
    classroom.set_defaults(command=run_classroom)

    site = commands.add_parser("site", help="build the course as a web site of plain files, to read without running")
    where = site.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "folder", type=place, metavar="DIR", nargs="?", help="a new folder, or a site made here before, to renew it"
    )
    where.add_argument("--links", action="store_true", help="build nothing: check the links to other sites (network)")
    site.set_defaults(command=run_site)
    return parser


def add_data_options(parser: argparse.ArgumentParser, *, sizes: bool = True) -> None:
    """Adds --root and --size. sizes: only those that the volumes come in."""
    parser.add_argument("--root", type=place, help=ROOT_HELP)
    if sizes:
        parser.add_argument("--size", type=int, choices=(28, 64), default=28, help="voxels of an axis (default: 28)")
    else:
        parser.add_argument(
            "--size", type=positive, help="voxels of an axis, 28 (default) or 64; of videos any, such as 112 or 224"
        )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")


def get_volumes(options: argparse.Namespace) -> Volumes:
    """The data set asked for; without a name the course's, which falls back to the phantom, saying so."""
    from .data import course_volumes, load_volumes

    if getattr(options, "videos", None):
        if options.name and not getattr(options, "resume", False):
            raise ConfigError(
                f"data set {options.name} and --videos {options.videos} were both given: give one of them"
            )
        from .datasets.video import load_videos

        more = {name: getattr(options, name) for name in ("val", "test", "clips") if getattr(options, name) is not None}
        with warnings.catch_warnings():
            first = os.environ.get("RANK", "0") == "0"
            warnings.showwarning = lambda message, *_: say(f"vivit-edu: {message}") if first else None
            return load_videos(options.videos, frames=options.frames, size=options.size, seed=options.seed, **more)
    if options.name is None:
        return course_volumes(options.size, root=options.root)
    return load_volumes(options.name, size=options.size, root=options.root)


def say_shared(volumes: Volumes) -> None:
    """Says below the figures where clips of one video are in several splits."""
    if volumes.files:
        from .datasets.video_splits import shared_files

        if told := shared_files(volumes.files):
            print(told)


def say_few(volumes: Volumes) -> None:
    """Says below the figures of own videos how much a single clip counts in them, where there are few."""
    if volumes.files and (few := min(len(volumes.val), len(volumes.test))) < FEW_CLIPS:
        of_val, of_test = (f"{n} clip{'s' * (n != 1)}" for n in (len(volumes.val), len(volumes.test)))
        print(
            f"These figures rest on {of_val} for validation and {of_test} for the test: one clip more or less is "
            f"{100 / few:.0f} points. Add files, or give --val and --test."
        )


def run_data(options: argparse.Namespace) -> None:
    """Shows what is in a data set and draws a montage of it."""
    from pathlib import Path

    from . import plots
    from .data import describe

    volumes = get_volumes(options)
    print(describe(volumes))
    picture = Path(options.out) / f"{volumes.name}-{options.size}.png"
    plots.save(plots.montage(volumes.train, volumes.class_names), picture)
    print(f"A montage of the training split: {picture}")


def run_train(options: argparse.Namespace) -> None:
    """Trains a model, or goes on with a run."""
    from .experiments.choices import for_few_clips, resumed, started
    from .experiments.runs import choose_device, claim, default_folder, train_run
    from .support.processes import is_first, join, leave, on_first, processes
    from .support.step_bar import steps_shown
    from .training import steps_per_epoch

    device = join(choose_device(options.device))  # of one process or, started by torchrun, of several
    choose = resumed if options.resume else started
    options, recipe, extra, remarks = on_first(choose, options, device.type)
    on_first(claim, options.out or "runs", options.resume)  # before data are read, which can take minutes
    if options.videos and processes() > 1:  # the first one decodes, and all of them map what it kept
        on_first(lambda: (get_volumes(options), None)[1])
        volumes = get_volumes(options)
    else:
        volumes = on_first(get_volumes, options)
    recipe, more = for_few_clips(options, recipe, len(volumes.train))
    out = options.out or on_first(default_folder, volumes, recipe, options.seed)
    if is_first():
        clips = f"{volumes.name} ({len(volumes.train)} clips)"
        print(
            f"Training {recipe.model} on {clips}, {recipe.epochs} epochs, on {device}.",
            *remarks,
            *more,
            sep="\n",
            flush=True,
        )
    steps = recipe.epochs * steps_per_epoch(len(volumes.train), recipe)
    try:
        with steps_shown(steps, wanted=is_first() and not options.resume):
            metrics = train_run(
                volumes,
                recipe,
                out=out,
                seed=options.seed,
                resume=options.resume,
                device=device,
                root=options.root,
                **extra,
            )
    except KeyboardInterrupt:
        say(f"\nFinished epochs are kept. To go on: vivit-edu train --resume --out {out}")
        raise
    if is_first():
        print_metrics(metrics)
        say_few(volumes)
        say_shared(volumes)
        print(f"Figures, metrics and checkpoint: {out}")
    leave()


def run_evaluate(options: argparse.Namespace) -> None:
    """Prints the figures of a run's model."""
    from dataclasses import asdict

    from .experiments.runs import evaluate_run

    print_metrics(
        {
            split: asdict(metrics)
            for split, metrics in evaluate_run(
                options.run, root=options.root, device=options.device, views=options.views
            ).items()
        }
    )


def run_predict(options: argparse.Namespace) -> None:
    """Prints what a model sees in files."""
    import json

    from .experiments.predicting import as_text, predict_files, read_predictor

    predictor = read_predictor(options.run, device=options.device)
    rows, failed = predict_files(predictor, options.files, views=options.views, top=options.top)
    if rows:
        print(json.dumps(rows, indent=1) if options.json else as_text(rows))
    if failed:
        reasons = "\n".join(f"  {reason}" for reason in failed.values())
        raise DataError(f"{len(failed)} of {len(rows) + len(failed)} files could not be read:\n{reasons}")


def run_ablate(options: argparse.Namespace) -> None:
    """Trains a table of recipes and prints it."""
    from .experiments.ablate import as_markdown, run_table, table_folder
    from .experiments.tables import make_rows

    rows = make_rows(options.table, options.epochs, options.bfloat16)
    volumes = get_volumes(options)
    out = options.out or table_folder(options.table, volumes)
    try:
        content = run_table(options.table, rows, volumes, seeds=options.seeds, out=out, device=options.device)
    except KeyboardInterrupt:
        say("\nFinished runs are kept. To go on, give the same command again.")
        raise
    print(as_markdown(content))
    print(f"The table as JSON, CSV, Markdown and picture: {out}")


def run_record(options: argparse.Namespace) -> None:
    """Trains the recorded models, one after the other."""
    from .experiments.trained import RECORDED, record, weights_path

    names = options.names or list(RECORDED)
    for name in names:  # before any is trained
        weights_path(name, options.seed)
    for name in names:
        print(f"{name}, seed {options.seed}: {RECORDED[name].recipe.epochs} epochs on {RECORDED[name].dataset}")
        try:
            path, facts = record(name, seed=options.seed, device=options.device, root=options.root)
        except KeyboardInterrupt:
            say("\nFinished epochs are kept. To go on, give the same command again.")
            raise
        print_metrics(facts)
        print(f"{path}: {facts['bytes']} bytes, {facts['minutes']} minutes")


def run_records(options: argparse.Namespace) -> None:
    """Says which recorded figures are stale, or repeats a sample of runs."""
    from datetime import date

    from .experiments.repeats import repeat_sample, repeats_table, states, states_table

    if options.repeat is None:
        if options.note or options.seed is not None:
            raise ConfigError("--note and --seed are for runs that are made again: give --repeat N as well")
        print(states_table(states()))
        print("A run is stale if a part of the code that decides its figures is another now, or its recipe is.")
        return
    seed = date.today().isocalendar().week if options.seed is None else options.seed
    done, left_out = repeat_sample(options.repeat, seed, options.most_seconds, note=options.note, root=options.root)
    print(repeats_table(done))
    print(
        "Allowed: three standard deviations of the difference between two seeds of the row, at least .02; .05 of one."
    )
    for reason in left_out:
        print(f"Not repeated: {reason}")
    if differing := [one for one in done if one.verdict == "differs"]:
        raise VivitEduError(f"{len(differing)} of {len(done)} runs came to other figures than those recorded")


def run_benches(options: argparse.Namespace) -> None:
    """Prints what was measured; with --train trains the models, too."""
    from .experiments.bench.benches import bench_table

    volumes = get_volumes(options) if options.name or options.train else None
    print(bench_table(options.bench, options.device, volumes))
    if options.train:
        print()
        run_ablate(options)


def run_pretrain(options: argparse.Namespace) -> None:
    """Trains an image transformer on slices and writes its weights."""
    from pathlib import Path

    from .experiments.pretraining import pretrain_to
    from .experiments.runs import choose_device
    from .training import Recipe

    device, volumes = choose_device(options.device), get_volumes(options)
    out = options.out or Path("runs") / f"{volumes.name}-slices-{options.seed}.safetensors"
    recipe, remark = Recipe.preset(options.preset).fitted(tuple(volumes.train.clips.shape[1:]))
    if remark:
        print(remark)
    length = {} if options.epochs is None else {"epochs": options.epochs}
    pretrain_to(out, volumes, recipe, seed=options.seed, device=device, **length)
    print(f"Weights of an image transformer, from slices of {len(volumes.train)} volumes of {volumes.name}: {out}")
    print(f"To start from them: vivit-edu train {volumes.name} --pretrained {out}")


def run_explain(options: argparse.Namespace) -> None:
    """Draws what a run's model looked at in one clip."""
    from .experiments.explain_run import explain_run

    title, files = explain_run(
        options.run,
        sample=options.sample,
        method=options.method,
        split=options.split,
        root=options.root,
        device=options.device,
    )
    print(title)
    for path in files:
        print(path)


def run_notebooks(options: argparse.Namespace) -> None:
    """Executes the course's notebooks and makes those of the students."""
    if options.stamp:
        if options.check or options.only or options.force or options.repo:
            raise ConfigError("--stamp notes that all ran whole, and runs nothing itself: give it alone")
        from .authoring.stamp import stamp

        print(stamp())
        return
    from .authoring.notebooks import run

    run(options)


def run_classroom(options: argparse.Namespace) -> None:
    """Lays out an nbgrader course."""
    from .authoring.classroom import classroom

    folder = classroom(options.folder, options.chapters)
    print(f"{len(list(folder.glob('source/*')))} assignments in {folder}; what to do next: {folder / 'README.md'}")


def run_site(options: argparse.Namespace) -> None:
    """Builds the web site."""
    from .authoring.site import broken_links, site

    if options.links:
        if found := broken_links():
            raise VivitEduError("\n- ".join(["links that lead nowhere:", *found]))
        print("All links to other sites lead somewhere.")
        return
    print(f"The site's first page: {site(options.folder) / 'index.html'}")


def print_metrics(metrics: dict[str, dict[str, float | None]]) -> None:
    """Prints a table of the validation and test figures; "–" where there is none, as the AUC of a single class."""
    from tabulate import tabulate

    from .support.tables import three_digits

    rows = [
        [split, *(three_digits(metrics[split][name]) for name in ("acc", "balanced_acc", "auc"))]
        for split in ("val", "test")
    ]
    print(tabulate(rows, headers=["split", "accuracy", "balanced", "AUC"], disable_numparse=True))
