"""Chapter 14: what its checks accept and refuse, its capstone, and what its cells define."""

import math

import numpy as np
import pytest
import torch

from vivit_edu import MODELS
from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.cost import PAPER
from vivit_edu.course.checks import ch14
from vivit_edu.course.recorded import recorded

from .cases import run_cases

# ---- 14.1


def by_polyfit(frames, seconds):
    return np.polyfit(np.log(frames), np.log(seconds), 1)[0]


def by_sums(frames, seconds):
    x, y = torch.tensor(frames).double().log(), torch.tensor(seconds).double().log()
    x, y = x - x.mean(), y - y.mean()
    return (x * y).sum() / (x * x).sum()


def by_lstsq(frames, seconds):
    x = np.stack([np.log2(frames), np.ones(len(frames))], axis=1)
    return float(np.linalg.lstsq(x, np.log2(seconds), rcond=None)[0][0])


test_growth = run_cases(
    ch14.check_growth,
    right=[by_polyfit, by_sums, by_lstsq],
    wrong={
        "the first two": (lambda f, s: math.log(s[1] / s[0]) / math.log(f[1] / f[0]), "expected 1.4"),
        "without its sign": (lambda f, s: abs(by_polyfit(f, s)), "is wrong: found 1.89"),
        "both sorted": (lambda f, s: by_polyfit(sorted(f), sorted(s)), "is wrong"),
        "no logarithm": (lambda f, s: np.polyfit(f, s, 1)[0], "logarithm of both"),
        "how many times": (lambda f, s: s[-1] / s[0], "how many times longer"),
        "seconds alone": (lambda f, s: np.polyfit(f, np.log(s), 1)[0], "so are the frames"),
        "frames alone": (lambda f, s: np.polyfit(np.log(f), s, 1)[0], "so are the seconds"),
        "quotient of logarithms": (lambda f, s: np.mean(np.log(s) / np.log(f)), "difference by a difference"),
        "axes exchanged": (lambda f, s: np.polyfit(np.log(s), np.log(f), 1)[0] if s[0] != s[1] else 0.0, "exchanged"),
        "first and last": (lambda f, s: math.log(s[-1] / s[0]) / math.log(f[-1] / f[0]), "through all"),
        "the intercept": (lambda f, s: np.polyfit(np.log(f), np.log(s), 1)[1], "meets the axis"),
        "both numbers": (lambda f, s: np.polyfit(np.log(f), np.log(s), 1), "is 2 numbers, expected one"),
        "rounded": (lambda f, s: round(float(by_polyfit(f, s))), "expected 1.4"),
        "an error": (lambda f, s: np.log(f / s), "TypeError"),
        "no return": (lambda f, s: None, "None"),
    },
)


# ---- 14.2


def by_gather(clips, generator):
    order = torch.rand(clips.shape[0], clips.shape[2], generator=generator).argsort(dim=1)
    return clips.gather(2, order[:, None, :, None, None].expand_as(clips))


def by_loop(clips, generator):
    return torch.stack([clip[:, torch.randperm(clip.shape[1], generator=generator)] for clip in clips])


def by_index(clips, generator):
    order = torch.stack([torch.randperm(clips.shape[2], generator=generator) for _ in clips])
    return clips.transpose(1, 2)[torch.arange(len(clips))[:, None], order].transpose(1, 2)


def shuffled(order, axis=2):
    """A solution from the order that it draws along one axis for all: order(size, generator)."""

    def solution(clips, generator):
        return clips.index_select(axis, order(clips.shape[axis], generator))

    return solution


def randperm(size, generator):
    return torch.randperm(size, generator=generator)


def each(change):
    """A solution from what it does to one clip [C, T, H, W]: change(clip, generator)."""
    return lambda clips, generator: torch.stack([change(clip, generator) for clip in clips])


def in_place(clips, generator):
    for clip in clips:
        clip[:] = clip[:, torch.randperm(clip.shape[1], generator=generator)]
    return clips


def own_seed(clips, generator):
    return by_loop(clips, torch.Generator().manual_seed(0))


def by_place(clips, generator):
    return clips.gather(2, torch.rand(clips.shape, generator=generator).argsort(dim=2))


def by_channel(clips, generator):
    order = torch.rand(clips.shape[:3], generator=generator).argsort(dim=2)
    return clips.gather(2, order[..., None, None].expand_as(clips))


def sorted_frames(clips, generator):
    return clips.sort(dim=2, descending=True).values


def exchanged(clips, generator):
    clips = clips.clone()
    for clip in clips:
        i, j = torch.randperm(clips.shape[2], generator=generator)[:2].tolist()
        clip[:, [i, j]] = clip[:, [j, i]]
    return clips


def rolled_and_reversed(clips, generator):
    rolled = [clip.roll(int(torch.randint(clip.shape[1], (), generator=generator)), 1) for clip in clips]
    flips = torch.rand(len(clips), generator=generator) < 0.5
    return torch.stack([clip.flip(1) if flip else clip for clip, flip in zip(rolled, flips)])


test_shuffle_frames = run_cases(
    ch14.check_shuffle_frames,
    right=[by_gather, by_loop, by_index],
    wrong={
        "rolled and reversed": (rolled_and_reversed, "of the 24 orders"),
        "the first frame kept": (
            each(lambda clip, g: torch.cat((clip[:, :1], clip[:, 1:][:, randperm(clip.shape[1] - 1, g)]), 1)),
            "of the 24 orders",
        ),
        "decimals": (lambda clips, generator: by_loop(clips, generator).float(), "in another type"),
        "always five clips": (
            lambda c, g: torch.stack([c[i][:, randperm(c.shape[2], g)] for i in range(5)]),
            "your code raised",
        ),
        "a new generator": (lambda clips, generator: by_loop(clips, torch.Generator()), "another seed gave the same"),
        "one order for all": (shuffled(randperm), "all clips have one order"),
        "the batch": (shuffled(randperm, 0), "from one clip to another"),
        "rows": (shuffled(randperm, 3), "not whole any more"),
        "axis 1": (each(lambda clip, g: clip[torch.tensor([1, 0])]), "channels changed places"),
        "a channel's own order": (by_channel, "channels of one clip"),
        "a place's own order": (by_place, "put together of several"),
        "randint": (
            each(lambda clip, g: clip[:, torch.randint(clip.shape[1], (clip.shape[1],), generator=g)]),
            "twice",
        ),
        "two exchanged": (exchanged, "only a few are exchanged"),
        "rolled": (each(lambda clip, g: clip.roll(int(torch.randint(1, 6, (), generator=g)), 1)), "only rolled"),
        "unseeded": (each(lambda clip, g: clip[:, torch.randperm(clip.shape[1])]), "draws from the global generator"),
        "a seed of its own": (own_seed, "another seed gave the same"),
        "nothing": (lambda clips, generator: clips.clone(), "as they stood"),
        "reversed": (lambda clips, generator: clips.flip(2), "one order"),
        "sorted": (sorted_frames, "one order"),
        "in place": (in_place, "changes the .* that it was given"),
        "mean": (lambda clips, g: clips.float().mean(2, keepdim=True).expand(clips.shape) + 0.25, "no clip holds"),
        "one clip": (lambda clips, g: by_loop(clips, g)[0], r"\[2, 6, 7, 4\], expected \[5, 2, 6, 7, 4\]"),
        "no return": (lambda clips, generator: None, "None"),
    },
)


# ---- 14.3


def by_masks(labels, answers, permutation):
    other = torch.tensor(permutation)[labels]
    sided = other != labels
    return (answers[sided] == other[sided]).float().mean().item()


def by_counting(labels, answers, permutation):
    pairs = [(y, a) for y, a in zip(labels.tolist(), answers.tolist()) if permutation[y] != y]
    return sum(permutation[y] == a for y, a in pairs) / len(pairs)


def by_answers(labels, answers, permutation):  # a swap is its own inverse
    swap = torch.tensor(permutation)
    sided = swap[labels] != labels
    return ((swap[answers] == labels) & sided).sum() / sided.sum()


def counted(share):
    """A solution from its last line: share(other, sided, labels, answers), the first two bool [N]."""

    def solution(labels, answers, permutation):
        swap = torch.tensor(permutation)
        return share(answers == swap[labels], swap[labels] != labels, labels, answers)

    return solution


def changed(labels, answers, permutation):
    share = by_masks(labels, answers, permutation)
    labels[:] = 0
    return share


test_wrong_side = run_cases(
    ch14.check_wrong_side,
    right=[by_masks, by_counting, by_answers],
    wrong={
        "the notebook's pairs": (lambda y, a, p: by_masks(y, a, (0, 2, 1, 4, 3, 5)), "is wrong: found 0"),
        "per cent": (lambda *given: 100 * by_masks(*given), "is wrong: found 50"),
        "whole division": (counted(lambda o, s, y, a: (o & s).sum() // s.sum()), "is wrong: found 0"),
        "the neighbouring class": (
            counted(lambda o, s, y, a: ((a - y).abs() == 1)[s].float().mean()),
            "is wrong: found 0",
        ),
        "of all clips": (counted(lambda o, s, y, a: (o & s).float().mean()), "of all clips"),
        "every wrong answer": (counted(lambda o, s, y, a: (a != y)[s].float().mean()), "every wrong answer"),
        "without a side": (counted(lambda o, s, y, a: o.float().mean()), "without a side were counted"),
        "without a side, by sided": (counted(lambda o, s, y, a: o.sum() / s.sum()), "divided by the clips with one"),
        "of the wrong ones": (counted(lambda o, s, y, a: (o & s).sum() / (a != y).sum()), "of the wrong answers"),
        "of the wrong sided ones": (counted(lambda o, s, y, a: (o & s).sum() / (s & (a != y)).sum()), "among sided"),
        "the right side": (counted(lambda o, s, y, a: (a == y)[s].float().mean()), "the right side"),
        "a number": (counted(lambda o, s, y, a: (o & s).sum()), "number of clips"),
        "sides of the answers": (
            lambda y, a, p: (a == torch.tensor(p)[y])[torch.tensor(p)[a] != a].float().mean(),
            "the label that",
        ),
        "each clip": (counted(lambda o, s, y, a: o[s]), "is 8 numbers, expected one"),
        "in place": (changed, "changes the .* that it was given"),
        "no return": (lambda *_: None, "None"),
    },
)


# ---- the cells


def test_the_chapters_own_functions_are_right():
    chapter = load_definitions(checkout() / "notebooks" / "14_cnn_or_vivit.ipynb")
    assert chapter.growth([10, 20, 40], [1, 4, 16]) == pytest.approx(2)
    clips = torch.randint(0, 256, (4, 2, 5, 3, 3), generator=torch.Generator().manual_seed(0))
    changed = chapter.shuffle_frames(clips, torch.Generator().manual_seed(0))
    assert torch.equal(changed.sort(dim=2).values, clips.sort(dim=2).values)
    labels, answers = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 2, 2, 1])
    assert chapter.wrong_side(labels, answers, (0, 2, 1)) == pytest.approx(1 / 3)
    probes = {"unchanged": {"runs": [0.6, 0.4]}, "wrong twin": {"runs": [0.2, 0.4]}}
    assert chapter.told_apart({"probes": probes}).tolist() == pytest.approx([0.75, 0.5])


# ---- what its text says of the recorded tables


def of_probe(dataset, name):
    return {row["row"]: row["probes"][name]["mean"] for row in recorded(f"all_models_{dataset}.json")["rows"]}


def of_test(dataset, figure):
    return {row["row"]: row["test"][figure]["mean"] for row in recorded(f"all_models_{dataset}.json")["rows"]}


@pytest.mark.parametrize("dataset", ["organphantom3d", "adrenalmnist3d", "movingshapes"])
def test_its_tables_hold_every_model_with_its_command_seeds_machine_and_date(dataset):
    table = recorded(f"all_models_{dataset}.json")
    assert [row["row"] for row in table["rows"]] == list(MODELS)
    assert table["command"].startswith(
        f"vivit-edu ablate all-models {dataset} --seeds {len(table['seeds'])} --epochs {table['epochs']}"
    )
    assert table["device"] and table["date"] and table["versions"]["torch"]
    for row in table["rows"]:
        assert len(row["test"]["auc"]["runs"]) == len(row["probes"]["unchanged"]["runs"]) == len(table["seeds"])


def test_what_is_said_of_the_organs():
    accuracy, vivits = of_test("organphantom3d", "acc"), list(PAPER)
    assert max(accuracy, key=accuracy.get) == "cnn3d"
    assert max(accuracy[name] for name in vivits) - min(accuracy[name] for name in vivits) < 0.05
    assert accuracy["cnn3d"] - max(accuracy[name] for name in vivits) > 0.15
    side = of_probe("organphantom3d", "wrong side")
    assert all(side[name] > 0.3 for name in (*vivits, "cnn_attention")) and side["cnn3d"] < 0.25
    unchanged, shuffled, noise, missing = (
        of_probe("organphantom3d", name) for name in ("unchanged", "shuffled", "noise", "missing")
    )
    assert unchanged["cnn_attention"] - shuffled["cnn_attention"] < 0.03
    assert (
        max(unchanged[name] - noise[name] for name in (*vivits, "early_fusion"))
        < 0.12
        < unchanged["cnn_attention"] - noise["cnn_attention"]
    )
    assert (
        min(unchanged[name] - missing[name] for name in ("cnn3d", "slow_fusion"))
        > 0.2
        > max(unchanged[name] - missing[name] for name in vivits) + 0.1
    )


def test_what_is_said_of_the_glands():
    accuracy, balanced, auc = (of_test("adrenalmnist3d", name) for name in ("acc", "balanced_acc", "auc"))
    assert max(auc, key=auc.get) == "cnn3d" and auc["cnn3d"] > 0.8
    assert (
        balanced["early_fusion"] == balanced["late_fusion"] == 0.5
        and auc["early_fusion"] > 0.75
        and abs(auc["late_fusion"] - 0.5) < 0.02
    )
    assert sum(value < 0.55 for value in balanced.values()) > len(MODELS) / 2
    assert max(accuracy.values()) - min(accuracy.values()) < 0.05


def test_what_is_said_of_twins():
    twin, turns = of_probe("movingshapes", "wrong twin"), of_probe("movingshapes", "wrong side")
    assert min(turns, key=turns.get) == "cnn3d" and turns["cnn3d"] < 0.15
    others = {name: (4 * twin[name] - turns[name]) / 3 for name in MODELS}
    assert others["late_fusion"] < 0.38 and others["cnn3d"] > 0.4 and turns["late_fusion"] > 0.4
    unchanged, shuffled, reversed_as_twin = (
        of_probe("movingshapes", name) for name in ("unchanged", "shuffled", "reversed, as twin")
    )
    assert abs(unchanged["cnn_attention"] - shuffled["cnn_attention"]) < 0.05
    for name in PAPER:
        assert unchanged[name] / (unchanged[name] + twin[name]) > 0.55 and reversed_as_twin[name] > 0.55
    assert max(unchanged["single_frame"], unchanged["multiresolution"]) < 0.5
    rows = {row["row"]: row["test"]["acc"] for row in recorded("all_models_movingshapes.json")["rows"]}
    best = sorted(rows, key=lambda name: rows[name]["mean"])[-3:]
    assert set(best) == set(PAPER) - {"factorised_encoder"} and "cnn3d" == max(
        rows, key=lambda name: max(rows[name]["runs"])
    )


def test_what_is_said_of_hunger():
    accuracy = {row["row"]: row["test"]["acc"]["mean"] for row in recorded("hunger_organphantom3d.json")["rows"]}
    vivits = [accuracy[f"100 %, {name}"] for name in ("spacetime", "factorised_encoder")]
    assert accuracy["10 %, cnn3d"] > max(vivits)
    assert abs(accuracy["100 %, early_fusion"] - max(vivits)) < 0.1
    assert accuracy["5 %, cnn3d"] < max(accuracy[f"5 %, {name}"] for name in ("spacetime", "factorised_encoder")) + 0.03
