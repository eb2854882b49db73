"""The checks of chapter 03 accept right solutions and name the mistakes that learners make."""

import math

import einops
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vivit_edu.course import ready
from vivit_edu.course.checks import ch03
from vivit_edu.course.slabs import train_on_slabs

from .cases import run_cases


def not_written(*arguments):
    raise NotImplementedError()


class NotWritten(nn.Module):
    def __init__(self, *sizes):
        raise NotImplementedError()


# ---- 03.1 the cut by loops, by einops, and the way back

CUT = "b c (nt pt) (nh ph) (nw pw) -> b nt (nh nw) (c pt ph pw)"


def loops(clip, tubelet):
    pt, ph, pw = tubelet
    boxes = []
    for t in range(0, clip.shape[1], pt):
        for y in range(0, clip.shape[2], ph):
            for x in range(0, clip.shape[3], pw):
                boxes.append(clip[:, t : t + pt, y : y + ph, x : x + pw].flatten())
    return torch.stack(boxes)


def loops_over_counts(clip, tubelet):
    C, T, H, W = clip.shape
    pt, ph, pw = tubelet
    result = torch.zeros(T // pt * (H // ph) * (W // pw), C * pt * ph * pw, dtype=clip.dtype)
    n = 0
    for i in range(T // pt):
        for j in range(H // ph):
            for k in range(W // pw):
                box = clip[:, i * pt : i * pt + pt, j * ph : (j + 1) * ph, k * pw : (k + 1) * pw]
                result[n] = box.reshape(-1)
                n += 1
    return result


def loops_by_split(clip, tubelet):
    pt, ph, pw = tubelet
    return torch.stack(
        [
            box.reshape(-1)
            for slab in clip.split(pt, dim=1)
            for bar in slab.split(ph, dim=2)
            for box in bar.split(pw, dim=3)
        ]
    )


def cut(clips, tubelet):
    pt, ph, pw = tubelet
    return rearrange(clips, CUT, pt=pt, ph=ph, pw=pw)


def cut_by_unfold(clips, tubelet):
    pt, ph, pw = tubelet
    boxes = clips.unfold(2, pt, pt).unfold(3, ph, ph).unfold(4, pw, pw)
    return boxes.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(2, 3)


def cut_by_view(clips, tubelet):
    B, C, T, H, W = clips.shape
    pt, ph, pw = tubelet
    x = clips.reshape(B, C, T // pt, pt, H // ph, ph, W // pw, pw)
    x = x.permute(0, 2, 4, 6, 1, 3, 5, 7)
    return x.reshape(B, T // pt, (H // ph) * (W // pw), C * pt * ph * pw)


def join(tubelets, grid, tubelet):
    nt, nh, nw = grid
    pt, ph, pw = tubelet
    return rearrange(
        tubelets,
        "b nt (nh nw) (c pt ph pw) -> b c (nt pt) (nh ph) (nw pw)",
        nt=nt,
        nh=nh,
        nw=nw,
        pt=pt,
        ph=ph,
        pw=pw,
    )


def join_by_permute(tubelets, grid, tubelet):
    (nt, nh, nw), (pt, ph, pw) = grid, tubelet
    boxes = tubelets.reshape(len(tubelets), nt, nh, nw, -1, pt, ph, pw)
    return boxes.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(len(tubelets), -1, nt * pt, nh * ph, nw * pw)


def join_by_loops(tubelets, grid, tubelet):
    (nt, nh, nw), (pt, ph, pw) = grid, tubelet
    clips = torch.zeros(
        len(tubelets), tubelets.shape[-1] // (pt * ph * pw), nt * pt, nh * ph, nw * pw, dtype=tubelets.dtype
    )
    for i in range(nt):
        for s in range(nh * nw):
            j, k = divmod(s, nw)
            box = tubelets[:, i, s].view(len(tubelets), -1, pt, ph, pw)
            clips[:, :, i * pt : (i + 1) * pt, j * ph : (j + 1) * ph, k * pw : (k + 1) * pw] = box
    return clips


def cutting(pattern):
    """A cut with this pattern."""
    return lambda clips, tubelet: rearrange(clips, pattern, **dict(zip(("pt", "ph", "pw"), tubelet)))


def joining(pattern):
    """A join with this pattern."""

    def join(tubelets, grid, tubelet):
        sizes = dict(zip(("nt", "nh", "nw"), grid)) | dict(zip(("pt", "ph", "pw"), tubelet))
        return rearrange(tubelets, pattern, **sizes)

    return join


def loops_width_slowest(clip, tubelet):
    pt, ph, pw = tubelet
    boxes = []
    for x in range(0, clip.shape[3], pw):
        for y in range(0, clip.shape[2], ph):
            for t in range(0, clip.shape[1], pt):
                boxes.append(clip[:, t : t + pt, y : y + ph, x : x + pw].flatten())
    return torch.stack(boxes)


def loops_step_one(clip, tubelet):
    pt, ph, pw = tubelet
    boxes = []
    for t in range(clip.shape[1] - pt + 1):
        for y in range(clip.shape[2] - ph + 1):
            for x in range(clip.shape[3] - pw + 1):
                boxes.append(clip[:, t : t + pt, y : y + ph, x : x + pw].flatten())
    return torch.stack(boxes)


def loops_over_counts_at_every_voxel(clip, tubelet):
    _, T, H, W = clip.shape
    pt, ph, pw = tubelet
    boxes = []
    for t in range(T // pt):
        for h in range(H // ph):
            for w in range(W // pw):
                boxes.append(clip[:, t : t + pt, h : h + ph, w : w + pw].flatten())
    return torch.stack(boxes)


def loops_list(clip, tubelet):
    pt, ph, pw = tubelet
    return [
        clip[:, t : t + pt, y : y + ph, x : x + pw].flatten()
        for t in range(0, clip.shape[1], pt)
        for y in range(0, clip.shape[2], ph)
        for x in range(0, clip.shape[3], pw)
    ]


def loops_not_flat(clip, tubelet):
    pt, ph, pw = tubelet
    return torch.stack(
        [
            clip[:, t : t + pt, y : y + ph, x : x + pw]
            for t in range(0, clip.shape[1], pt)
            for y in range(0, clip.shape[2], ph)
            for x in range(0, clip.shape[3], pw)
        ]
    )


def loops_first_channel(clip, tubelet):
    pt, ph, pw = tubelet
    return torch.stack(
        [
            clip[0, t : t + pt, y : y + ph, x : x + pw].flatten()
            for t in range(0, clip.shape[1], pt)
            for y in range(0, clip.shape[2], ph)
            for x in range(0, clip.shape[3], pw)
        ]
    )


def loops_through_numpy(clip, tubelet):
    return torch.tensor(loops(clip, tubelet).tolist())


def cut_by_reshape(clips, tubelet):
    B, C, T, H, W = clips.shape
    pt, ph, pw = tubelet
    return clips.reshape(B, T // pt, (H // ph) * (W // pw), C * pt * ph * pw)


def cut_the_first_clip(clips, tubelet):
    return loops(clips[0], tubelet)


def cut_for_four(clips, tubelet):
    return cut(clips, tubelet).view(4, 4, 16, 343)


def cut_in_place(clips, tubelet):
    clips /= 255
    return cut(clips, tubelet)


def cut_detached(clips, tubelet):
    return cut(clips.detach(), tubelet)


def cut_as_float(clips, tubelet):
    return cut(clips.float(), tubelet)


def cut_with_counts(clips, tubelet):
    nt, nh, nw = tubelet
    return rearrange(clips, CUT, nt=nt, nh=nh, nw=nw)


def cut_cubes(clips, tubelet):
    return rearrange(clips, "b c (nt p1) (nh p2) (nw p3) -> b nt (nh nw) (c p1 p2 p3)", p1=7, p2=7, p3=7)


def join_by_reshape(tubelets, grid, tubelet):
    return tubelets.reshape(len(tubelets), -1, *(n * step for n, step in zip(grid, tubelet)))


def join_nothing(tubelets, grid, tubelet):
    join(tubelets, grid, tubelet)


def join_without_sizes(tubelets, grid, tubelet):
    return rearrange(tubelets, "b nt (nh nw) (c pt ph pw) -> b c (nt pt) (nh ph) (nw pw)", pt=tubelet[0])


def join_one_channel(tubelets, grid, tubelet):
    (_, nh, nw), (pt, ph, pw) = grid, tubelet
    return rearrange(
        tubelets, "b nt (nh nw) (pt ph pw) -> b 1 (nt pt) (nh ph) (nw pw)", nh=nh, nw=nw, pt=pt, ph=ph, pw=pw
    )


def three(loops=loops, cut=cut, join=join):
    """The three functions of exercise 03.1, one of them given."""
    return loops, cut, join


def unpacked(check):
    return lambda functions: check(*functions)


class Named(tuple):
    """Several functions that answer one exercise, with a name for the test."""

    def __new__(cls, name, *functions):
        self = super().__new__(cls, functions)
        self.__name__ = name
        return self


START, END = "b c (nt pt) (nh ph) (nw pw) -> ", " -> b c (nt pt) (nh ph) (nw pw)"


def loops_to_the_last_but_one(clip, tubelet):
    c, T, H, W = clip.shape
    pt, ph, pw = tubelet
    boxes = []
    for t in range(0, T - 1, pt):
        for y in range(0, H - 1, ph):
            for x in range(0, W - 1, pw):
                boxes.append(clip[:, t : t + pt, y : y + ph, x : x + pw].flatten())
    return torch.stack(boxes)


test_cut_and_join = run_cases(
    unpacked(ch03.check_cut_and_join),
    right=[
        Named("rearrange", loops, cut, join),
        Named("unfold and permute", loops_over_counts, cut_by_unfold, join_by_permute),
        Named("view and loops", loops_by_split, cut_by_view, join_by_loops),
    ],
    wrong={
        "loops: T - 1, wrong for tubelets of one voxel": (
            three(loops=loops_to_the_last_but_one),
            r"cut_by_loops\(clip, \(1, 2, 1\)\) has shape",
        ),
        "loops: width slowest": (three(loops=loops_width_slowest), "width were the slowest loop"),
        "loops: steps of one": (three(loops=loops_step_one), "steps of one voxel"),
        "loops: counts for places": (three(loops=loops_over_counts_at_every_voxel), r"begins at voxel t \* pt"),
        "loops: a list": (three(loops=loops_list), "a list, expected a tensor"),
        "loops: not flat": (three(loops=loops_not_flat), "still boxes"),
        "loops: first channel": (three(loops=loops_first_channel), "only the first channel"),
        "loops: through lists": (three(loops=loops_through_numpy), "right for float32, but|no gradient"),
        "loops: not written": (three(loops=not_written), "still to be written"),
        "cut: reshape": (three(cut=cut_by_reshape), "only given another shape"),
        "cut: grid's height and width": (
            three(cut=cutting(START + "b nt (nw nh) (c pt ph pw)")),
            "height and width of the grid were swapped",
        ),
        "cut: woven": (three(cut=cutting("b c (pt nt) (ph nh) (pw nw) -> b nt (nh nw) (c pt ph pw)")), "woven"),
        "cut: channels last": (three(cut=cutting(START + "b nt (nh nw) (pt ph pw c)")), "channels came last"),
        "cut: one sequence": (three(cut=cutting(START + "b (nt nh nw) (c pt ph pw)")), "keep time apart from space"),
        "cut: time last": (three(cut=cutting(START + "b nt (nh nw) (c ph pw pt)")), "time came last"),
        "cut: no S": (three(cut=cutting(START + "b nt nh nw (c pt ph pw)")), "have an axis each"),
        "cut: space first": (three(cut=cutting(START + "b (nh nw) nt (c pt ph pw)")), "space comes before time"),
        "cut: one clip": (three(cut=cut_the_first_clip), "2 axes instead of 4"),
        "cut: notebook's sizes": (three(cut=cut_for_four), "(?s)invalid.*take sizes from the arguments"),
        "cut: notebook's tubelets": (three(cut=cut_cubes), "(?s)EinopsError.*take sizes from the arguments"),
        "cut: in place": (three(cut=cut_in_place), "changes the clips"),
        "cut: detached": (three(cut=cut_detached), "no gradient"),
        "cut: always float32": (three(cut=cut_as_float), "keep the(ir)? type"),
        "cut: counts for sizes": (three(cut=cut_with_counts), "taken for the numbers of tubelets"),
        "join: reshape": (three(join=join_by_reshape), "only given another shape"),
        "join: grid's height and width": (
            three(join=joining("b nt (nw nh) (c pt ph pw)" + END)),
            "height and width of the grid were swapped",
        ),
        "join: woven": (three(join=joining("b nt (nh nw) (c pt ph pw) -> b c (pt nt) (ph nh) (pw nw)")), "woven"),
        "join: channels last": (three(join=joining("b nt (nh nw) (pt ph pw c)" + END)), "channels came last"),
        "join: voxels' height and width": (
            three(join=joining("b nt (nh nw) (c pt pw ph)" + END)),
            "inside a tubelet were swapped",
        ),
        "join: channels at the end": (
            three(join=joining("b nt (nh nw) (c pt ph pw) -> b (nt pt) (nh ph) (nw pw) c")),
            "channels come second",
        ),
        "join: no return": (three(join=join_nothing), "is None"),
        "join: sizes missing": (three(join=join_without_sizes), "EinopsError"),
        "join: one channel": (three(join=join_one_channel), "EinopsError"),
        "join: not written": (three(join=not_written), "still to be written"),
    },
)

# ---- 03.2 the projection


def project(tubelets, E, b):
    return tubelets @ E.T + b


def filters(E, tubelet):
    pt, ph, pw = tubelet
    return rearrange(E, "d (c pt ph pw) -> d c pt ph pw", pt=pt, ph=ph, pw=pw)


def project_by_linear(tubelets, E, b):
    return F.linear(tubelets, E, b)


def project_by_einsum(tubelets, E, b):
    return torch.einsum("btsv,dv->btsd", tubelets, E) + b


def filters_by_reshape(E, tubelet):
    return E.reshape(E.shape[0], -1, *tubelet)


def filters_by_unflatten(E, tubelet):
    return E.unflatten(1, (E.shape[1] // math.prod(tubelet), *tubelet))


def project_with_new_weights(tubelets, E, b):
    return nn.Linear(E.shape[1], E.shape[0])(tubelets)


def project_untransposed(tubelets, E, b):
    return tubelets @ E + b


def project_by_loop_over_the_first(tubelets, E, b):
    return torch.stack([torch.stack([E @ box + b for box in index]) for index in tubelets[0]])


def project_without_grad(tubelets, E, b):
    with torch.no_grad():
        return tubelets @ E.T + b


def project_through_linear(tubelets, E, b):
    layer = nn.Linear(E.shape[1], E.shape[0])
    layer.weight.data, layer.bias.data = E, b
    return layer(tubelets)


def filters_channels_last(E, tubelet):
    pt, ph, pw = tubelet
    return rearrange(E, "d (pt ph pw c) -> d c pt ph pw", pt=pt, ph=ph, pw=pw)


def two(project=project, filters=filters):
    return project, filters


test_project = run_cases(
    unpacked(ch03.check_project),
    right=[
        Named("matmul", project, filters),
        Named("F.linear", project_by_linear, filters_by_reshape),
        Named("einsum", project_by_einsum, filters_by_unflatten),
    ],
    wrong={
        "no b": (two(lambda x, E, b: x @ E.T), "b were missing"),
        "b subtracted": (two(lambda x, E, b: x @ E.T - b), "b were subtracted"),
        "not transposed": (two(project_untransposed), "multiply the tubelets by E.T"),
        "the wrong way round": (two(lambda x, E, b: E @ x + b), "multiply the tubelets by E.T"),
        "E reshaped": (two(lambda x, E, b: x @ E.reshape(E.shape[::-1]) + b), "its transpose is E.T"),
        "new weights": (two(project_with_new_weights), "draw no new weights"),
        "weights copied into a layer": (two(project_through_linear), "no gradient reaches E"),
        "relu": (two(lambda x, E, b: (x @ E.T + b).relu()), "non-linearity"),
        "gelu": (two(lambda x, E, b: F.gelu(x @ E.T + b)), "GELU"),
        "averaged": (two(lambda x, E, b: x @ E.T / x.shape[-1] + b), "divided by the number of values"),
        "flat": (two(lambda x, E, b: (x @ E.T + b).flatten(1, 2)), "keep the grid"),
        "one clip": (two(project_by_loop_over_the_first), "only the first clip"),
        "no_grad": (two(project_without_grad), "no gradient"),
        "float32": (two(lambda x, E, b: x.float() @ E.float().T + b.float()), "keep the(ir)? type"),
        "not written": (two(not_written), "still to be written"),
        "filters: channels last": (two(filters=filters_channels_last), "channels came last"),
        "filters: time and width": (
            two(filters=lambda E, p: rearrange(E, "d (c w h t) -> d c t h w", t=p[0], h=p[1], w=p[2])),
            "time and width were swapped",
        ),
        "filters: transposed": (two(filters=lambda E, p: E.T.reshape(len(E), -1, *p)), "transposed first"),
        "filters: no channels": (two(filters=lambda E, p: E.reshape(len(E), -1, *p[1:])), "axis of channels"),
        "filters: flipped": (two(filters=lambda E, p: filters(E, p).flip(2, 3, 4)), "reversed"),
        "filters: channels first": (two(filters=lambda E, p: filters(E, p).transpose(0, 1)), "before D"),
        "filters: a copy": (two(filters=lambda E, p: nn.Parameter(filters(E, p))), "no gradient"),
        "filters: one channel": (two(filters=lambda E, p: E.view(len(E), 1, *p)), "your code raised RuntimeError"),
    },
)

# ---- 03.3 the module


class ByConv(nn.Module):
    def __init__(self, clip_shape, dim, tubelet):
        super().__init__()
        C, T, H, W = clip_shape
        pt, ph, pw = tubelet
        if T % pt or H % ph or W % pw:
            raise ValueError(f"a clip of {(T, H, W)} can't be cut into tubelets of {(pt, ph, pw)}")
        self.grid = (T // pt, H // ph, W // pw)
        self.conv = nn.Conv3d(C, dim, kernel_size=tubelet, stride=tubelet)

    def forward(self, clips):
        return self.conv(clips).flatten(3).permute(0, 2, 3, 1)


class ByLinear(nn.Module):
    def __init__(self, clip_shape, dim, tubelet):
        super().__init__()
        self.tubelet = tubelet
        self.grid = [size // step for size, step in zip(clip_shape[1:], tubelet)]
        if [n * step for n, step in zip(self.grid, tubelet)] != list(clip_shape[1:]):
            raise ValueError(f"does not fit: {clip_shape[1:]} by {tubelet}")
        self.linear = nn.Linear(clip_shape[0] * math.prod(tubelet), dim)

    def forward(self, x):
        return self.linear(cut(x, self.tubelet))


class ByParameters(nn.Module):
    def __init__(self, clip_shape, dim, tubelet):
        super().__init__()
        for name, size, step in zip("THW", clip_shape[1:], tubelet):
            if size % step != 0:
                raise ValueError(f"{name} = {size} is not a multiple of {step}")
        self.grid = torch.tensor(clip_shape[1:]) // torch.tensor(tubelet)
        self.tubelet = tubelet
        self.E = nn.Parameter(torch.randn(clip_shape[0] * math.prod(tubelet), dim) * 0.02)
        self.b = nn.Parameter(torch.zeros(dim))

    def forward(self, clips):
        return cut(clips, self.tubelet) @ self.E + self.b


def with_forward(forward):
    """ByConv, but with this forward."""
    return type("Wrong", (ByConv,), {"forward": forward})


def with_init(init):
    """ByConv, but with this __init__, called after a right one."""

    def both(self, clip_shape, dim, tubelet):
        ByConv.__init__(self, clip_shape, dim, tubelet)
        init(self, clip_shape, dim, tubelet)

    return type("Wrong", (ByConv,), {"__init__": both})


class NoSuper(nn.Module):
    def __init__(self, clip_shape, dim, tubelet):
        self.conv = nn.Conv3d(clip_shape[0], dim, tubelet, tubelet)


class Crops(ByConv):
    def __init__(self, clip_shape, dim, tubelet):
        nn.Module.__init__(self)
        self.grid = tuple(n // p for n, p in zip(clip_shape[1:], tubelet))
        self.conv = nn.Conv3d(clip_shape[0], dim, tubelet, tubelet)


class RefusesTimeOnly(ByConv):
    def __init__(self, clip_shape, dim, tubelet):
        nn.Module.__init__(self)
        if clip_shape[1] % tubelet[0]:
            raise ValueError(f"{clip_shape} does not fit {tubelet}")
        self.grid = tuple(n // p for n, p in zip(clip_shape[1:], tubelet))
        self.conv = nn.Conv3d(clip_shape[0], dim, tubelet, tubelet)


class Asserts(Crops):
    def __init__(self, clip_shape, dim, tubelet):
        super().__init__(clip_shape, dim, tubelet)
        assert not any(n % p for n, p in zip(clip_shape[1:], tubelet)), "does not fit"


class Curt(Crops):
    def __init__(self, clip_shape, dim, tubelet):
        super().__init__(clip_shape, dim, tubelet)
        if any(n % p for n, p in zip(clip_shape[1:], tubelet)):
            raise ValueError("wrong sizes")


class Seeded(ByConv):
    def __init__(self, clip_shape, dim, tubelet):
        torch.manual_seed(0)
        super().__init__(clip_shape, dim, tubelet)


class LinearOnReshape(ByLinear):
    def forward(self, clips):
        nt, nh, nw = self.grid
        return self.linear(clips.reshape(len(clips), nt, nh * nw, -1))


class PlainTensors(ByParameters):
    def __init__(self, clip_shape, dim, tubelet):
        super().__init__(clip_shape, dim, tubelet)
        del self.E, self.b
        self.E, self.b = torch.randn(clip_shape[0] * math.prod(tubelet), dim), torch.zeros(dim)


class Zeros(ByParameters):
    def __init__(self, clip_shape, dim, tubelet):
        super().__init__(clip_shape, dim, tubelet)
        nn.init.zeros_(self.E)


class NewLayerEachTime(ByConv):
    def forward(self, clips):
        layer = nn.Conv3d(clips.shape[1], self.conv.out_channels, self.conv.kernel_size, self.conv.stride)
        return rearrange(layer(clips), "b d nt nh nw -> b nt (nh nw) d")


def tokens_of(self, clips):
    return rearrange(self.conv(clips), "b d nt nh nw -> b nt (nh nw) d")


def tokens_without_grad(self, clips):
    with torch.no_grad():
        return tokens_of(self, clips)


def tokens_of_changed_clips(self, clips):
    clips -= clips.mean()
    return tokens_of(self, clips)


def fewer_channels(self, clip_shape, dim, tubelet):
    self.conv = nn.Conv3d(1, dim, tubelet, tubelet)


def second_layer(self, clip_shape, dim, tubelet):
    self.more = nn.Linear(dim, dim)


def no_bias(self, clip_shape, dim, tubelet):
    self.conv = nn.Conv3d(clip_shape[0], dim, tubelet, tubelet, bias=False)


def no_stride(self, clip_shape, dim, tubelet):
    self.conv = nn.Conv3d(clip_shape[0], dim, tubelet)


def frozen(self, clip_shape, dim, tubelet):
    self.requires_grad_(False)


def grid_as(compute):
    """An __init__ that keeps another grid."""

    def keep(self, clip_shape, dim, tubelet):
        self.grid = compute(clip_shape[1:], tubelet)

    return keep


test_tubelet_embedding = run_cases(
    ch03.check_tubelet_embedding,
    right=[ByConv, ByLinear, ByParameters],
    wrong={
        "grid's height and width": (
            with_forward(lambda self, x: rearrange(self.conv(x), "b d nt nh nw -> b nt (nw nh) d")),
            "height and width of the grid were swapped",
        ),
        "one sequence": (
            with_forward(lambda self, x: rearrange(self.conv(x), "b d nt nh nw -> b (nt nh nw) d")),
            "keep time apart from space",
        ),
        "maps": (with_forward(lambda self, x: self.conv(x)), "D comes last"),
        "view": (
            with_forward(lambda self, x: self.conv(x).reshape(len(x), self.grid[0], -1, self.conv.out_channels)),
            "only given another shape",
        ),
        "channels second": (with_forward(lambda self, x: self.conv(x).flatten(3)), "D comes last"),
        "clip reshaped": (LinearOnReshape, "the clip were only given another shape"),
        "relu": (with_forward(lambda self, x: tokens_of(self, x).relu()), "non-linearity"),
        "no_grad": (with_forward(tokens_without_grad), "no gradient"),
        "changes the clips": (with_forward(tokens_of_changed_clips), "changes the clips"),
        "always float32": (with_forward(lambda self, x: tokens_of(self, x.float()).float()), "type|float32"),
        "no return": (with_forward(lambda self, x: None), "is None"),
        "new layer in forward": (NewLayerEachTime, "wrong in .* values|no gradient"),
        "no super": (NoSuper, "cannot assign module before Module.__init__"),
        "one channel": (with_init(fewer_channels), "channels are missing"),
        "second layer": (with_init(second_layer), "expected E with"),
        "no b": (with_init(no_bias), "b is missing, one number for each of the 7 rows of E"),
        "no stride": (with_init(no_stride), "had no stride"),
        "frozen": (with_init(frozen), "requires_grad=False"),
        "plain tensors": (PlainTensors, "no parameters"),
        "zeros": (Zeros, "same E"),
        "seeded": (Seeded, "global seed"),
        "grid in floats": (
            with_init(grid_as(lambda size, step: tuple(n / p for n, p in zip(size, step)))),
            "divide with //",
        ),
        "grid reversed": (
            with_init(grid_as(lambda size, step: tuple(n // p for n, p in zip(size, step))[::-1])),
            "reverse order",
        ),
        "grid is the tubelet": (with_init(grid_as(lambda size, step: step)), "the tubelet's size"),
        "grid has S": (
            with_init(grid_as(lambda n, p: (n[0] // p[0], n[1] // p[1] * (n[2] // p[2])))),
            "keep all three",
        ),
        "no grid": (with_init(lambda self, *_: delattr(self, "grid")), "no attribute grid"),
        "crops": (Crops, "left over along time"),
        "refuses along time only": (RefusesTimeOnly, "left over along height"),
        "asserts": (Asserts, "raises AssertionError; expected a ValueError"),
        "message without sizes": (Curt, "does not name the sizes"),
        "not written": (NotWritten, "still to be written"),
        "a function": (lambda clip_shape, dim, tubelet: lambda clips: clips, "inherits from nn.Module"),
    },
)

# ---- 03.4 from tokens back to clips


def rebuild(tokens, E, b, grid, tubelet):
    return join((tokens - b) @ torch.linalg.pinv(E).T, grid, tubelet)


def rebuild_by_einsum(tokens, E, b, grid, tubelet):
    boxes = torch.einsum("btsd,vd->btsv", tokens - b, E.pinverse())
    return join_by_permute(boxes, grid, tubelet)


def rebuild_by_lstsq(tokens, E, b, grid, tubelet):
    columns = (tokens - b).flatten(0, 2).T  # [D, B·N]
    boxes = torch.linalg.lstsq(E, columns, driver="gelsd").solution.T
    return join(boxes.reshape(*tokens.shape[:3], -1), grid, tubelet)


def rebuild_without_join(tokens, E, b, grid, tubelet):
    return (tokens - b) @ torch.linalg.pinv(E).T


def rebuild_by_reshape(tokens, E, b, grid, tubelet):
    boxes = (tokens - b) @ torch.linalg.pinv(E).T
    return boxes.reshape(len(tokens), -1, *(n * p for n, p in zip(grid, tubelet)))


test_rebuild = run_cases(
    ch03.check_rebuild,
    right=[rebuild, rebuild_by_einsum, rebuild_by_lstsq],
    wrong={
        "E detached": (
            lambda x, E, b, g, p: join((x - b) @ torch.linalg.pinv(E.detach()).T, g, p),
            "no gradient reaches E",
        ),
        "b forgotten": (lambda x, E, b, g, p: join(x @ torch.linalg.pinv(E).T, g, p), "b were not undone"),
        "b added": (lambda x, E, b, g, p: join((x + b) @ torch.linalg.pinv(E).T, g, p), "b were added once more"),
        "b subtracted last": (
            lambda x, E, b, g, p: join(x @ torch.linalg.pinv(E).T - b.mean(), g, p),
            "after the pseudo-inverse",
        ),
        "b subtracted from the boxes": (
            lambda x, E, b, g, p: join(x @ torch.linalg.pinv(E).T - b, g, p),
            "before the pseudo-inverse",
        ),
        "pinv reshaped": (
            lambda x, E, b, g, p: join((x - b) @ torch.linalg.pinv(E).reshape(E.shape), g, p),
            "only given another shape: its transpose",
        ),
        "transpose for inverse": (lambda x, E, b, g, p: join((x - b) @ E, g, p), "E's transpose"),
        "inverse": (
            lambda x, E, b, g, p: join((x - b) @ torch.linalg.inv(E).T, g, p),
            "take torch.linalg.pinv",
        ),
        "pinv not transposed": (
            lambda x, E, b, g, p: join((x - b) @ torch.linalg.pinv(E), g, p),
            "multiply by its transpose",
        ),
        "without join": (rebuild_without_join, "join them to clips"),
        "reshape": (rebuild_by_reshape, "only given another shape"),
        "no return": (lambda *_: None, "is None"),
        "detached": (lambda x, E, b, g, p: rebuild(x.detach(), E, b, g, p), "no gradient"),
        "in place": (lambda x, E, b, g, p: join(x.sub_(b) @ torch.linalg.pinv(E).T, g, p), "changes the"),
        "float32": (lambda x, E, b, g, p: rebuild(x.float(), E.float(), b.float(), g, p), "keep the(ir)? type"),
        "fixed grid": (lambda x, E, b, g, p: join((x - b) @ torch.linalg.pinv(E).T, (4, 4, 4), (7, 7, 7)), "Einops"),
        "not written": (not_written, "still to be written"),
    },
)

# ---- 03.5 frames


def frames(clips, tubelet):
    pt, ph, pw = tubelet
    return rearrange(clips[:, :, pt // 2 :: pt], "b c nt (nh ph) (nw pw) -> b nt (nh nw) (c ph pw)", ph=ph, pw=pw)


def frames_by_cut(clips, tubelet):
    pt, ph, pw = tubelet
    kept = clips[:, :, [i + pt // 2 for i in range(0, clips.shape[2], pt)]]
    return cut(kept, (1, ph, pw))


def frames_of_tubelets(clips, tubelet):
    pt, ph, pw = tubelet
    boxes = cut(clips, tubelet).unflatten(-1, (clips.shape[1], pt, ph * pw))
    return boxes[..., pt // 2, :].flatten(3)


def choosing(choose):
    """A solution that cuts rightly what `choose(clips, pt)` keeps."""
    return lambda clips, tubelet: cut(choose(clips, tubelet[0]), (1, *tubelet[1:]))


def even_frames(clips, pt):
    return clips[:, :, torch.linspace(0, clips.shape[2] - 1, clips.shape[2] // pt).round().long()]


test_cut_frames = run_cases(
    ch03.check_cut_frames,
    right=[frames, frames_by_cut, frames_of_tubelets],
    wrong={
        "frame 3 of each stretch": (choosing(lambda x, p: x[:, :, 3::p]), "the middle one of seven"),
        "the frame after": (choosing(lambda x, p: x[:, :, p // 2 + 1 :: p]), "frame after the middle one"),
        "from the middle on": (choosing(lambda x, p: x[:, :, p // 2 :]), "all frames from pt // 2 on"),
        "one frame": (choosing(lambda x, p: x[:, :, [p // 2]]), "a single frame"),
        "maximum": (choosing(lambda x, p: x.unflatten(2, (-1, p)).amax(3)), "largest value of each stretch"),
        "first of each": (choosing(lambda x, p: x[:, :, ::p]), "first frame of each stretch"),
        "last of each": (choosing(lambda x, p: x[:, :, p - 1 :: p]), "last frame of each stretch"),
        "(pt - 1) // 2": (choosing(lambda x, p: x[:, :, (p - 1) // 2 :: p]), "\\(pt - 1\\) // 2"),
        "first nt": (choosing(lambda x, p: x[:, :, : x.shape[2] // p]), "first nt frames"),
        "mean": (choosing(lambda x, p: x.unflatten(2, (-1, p)).mean(3)), "averaged"),
        "linspace": (choosing(even_frames), "clip's first to its last"),
        "all": (choosing(lambda x, p: x), "all frames are kept"),
        "channels": (choosing(lambda x, p: x[:, p // 2 :: p]), "(has|have) shape.*time is axis 2"),
        "frame 3": (choosing(lambda x, p: x[:, :, 3::7]), "(has|have) shape"),
        "grid's height and width": (
            lambda x, p: rearrange(
                x[:, :, p[0] // 2 :: p[0]],
                "b c nt (nh ph) (nw pw) -> b nt (nw nh) (c ph pw)",
                ph=p[1],
                pw=p[2],
            ),
            "height and width of the grid were swapped",
        ),
        "channels last": (
            lambda x, p: rearrange(
                x[:, :, p[0] // 2 :: p[0]], "b c nt (nh ph) (nw pw) -> b nt (nh nw) (ph pw c)", ph=p[1], pw=p[2]
            ),
            "channels came last",
        ),
        "not cut": (lambda x, p: x[:, :, p[0] // 2 :: p[0]], "not cut into patches"),
        "reshape": (
            lambda x, p: x[:, :, p[0] // 2 :: p[0]].reshape(frames(x, p).shape),
            "only given another shape",
        ),
        "flat": (lambda x, p: frames(x, p).flatten(1, 2), "keep the grid"),
        "detached": (lambda x, p: frames(x.data, p), "no gradient"),
        "no return": (lambda x, p: None, "is None"),
        "not written": (not_written, "still to be written"),
    },
)

# ---- 03.6 the test that catches it


def read_by_grad(embedding, clip, i, s):
    probe = clip.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(embedding(probe[None])[0, i, s].sum(), probe)
    return gradient != 0


def read_by_backward(embedding, clip, i, s):
    probe = clip.detach().clone()[None]
    probe.requires_grad = True
    embedding(probe)[0, i, s].sum().backward()
    return probe.grad[0].abs() > 0


def read_by_change(embedding, clip, i, s):
    with torch.no_grad():
        before = embedding(clip[None])[0, i, s]
        read = torch.zeros(clip.shape, dtype=torch.bool)
        for place in np.ndindex(*clip.shape):
            changed = clip.clone()
            changed[place] += 1
            read[place] = (embedding(changed[None])[0, i, s] - before).abs().max() > 1e-6
    return read


def read_a_clip_of_its_own(embedding, clip, i, s):
    x = torch.rand_like(clip)[None].requires_grad_()
    embedding(x)[0, i, s].sum().backward()
    return x.grad[0] != 0


def test_by_cut(embedding, clip_shape, tubelet, read=read_by_grad):
    clip = torch.rand(*clip_shape)
    _, nt, places, _ = embedding(clip[None]).shape
    for i in range(nt):
        for s in range(places):
            boxes = cut(read(embedding, clip, i, s)[None], tubelet)[0]
            if not boxes[i, s].all() or boxes.sum() > boxes[i, s].sum():
                return False
    return True


test_by_cut.__test__ = False


def sound_by_slices(embedding, clip_shape, tubelet):
    clip = torch.randn(clip_shape)
    pt, ph, pw = tubelet
    nw = clip_shape[3] // pw
    tokens = embedding(clip[None])
    right = torch.tensor(True)
    for i in range(tokens.shape[1]):
        for s in range(tokens.shape[2]):
            expected = torch.zeros(*clip_shape, dtype=torch.bool)
            j, k = s // nw, s % nw
            expected[:, i * pt : (i + 1) * pt, j * ph : (j + 1) * ph, k * pw : (k + 1) * pw] = True
            right = right & (read_by_backward(embedding, clip, i, s) == expected).all()
    return right


def sound_as_numpy(embedding, clip_shape, tubelet):
    return np.bool_(test_by_cut(embedding, clip_shape, tubelet, read_by_backward))


def of_tokens(choose, test=lambda boxes, i, s: boxes[i, s].all() and boxes.sum() == boxes[i, s].sum()):
    """A test that looks only at the tokens that choose(nt, S) lists."""

    def sound(embedding, clip_shape, tubelet):
        clip = torch.rand(*clip_shape)
        _, nt, places, _ = embedding(clip[None]).shape
        for i, s in choose(nt, places):
            boxes = cut(read_by_grad(embedding, clip, i, s)[None], tubelet)[0]
            if not test(boxes, i, s):
                return False
        return True

    return sound


def sound_by_its_grid(embedding, clip_shape, tubelet):
    clip = torch.rand(*clip_shape)
    nt, nh, nw = embedding.grid
    for t in range(nt):
        for s in range(nh * nw):
            own = torch.zeros(1, nt, nh * nw, clip_shape[0] * math.prod(tubelet), dtype=torch.bool)
            own[0, t, s] = True
            if not torch.equal(read_by_grad(embedding, clip, t, s), join(own, embedding.grid, tubelet)[0]):
                return False
    return True


def every(nt, places):
    return [(i, s) for i in range(nt) for s in range(places)]


def sound_by_shape(embedding, clip_shape, tubelet):
    nt, nh, nw = (n // p for n, p in zip(clip_shape[1:], tubelet))
    return embedding(torch.rand(1, *clip_shape)).shape[:3] == (1, nt, nh * nw)


def sound_by_union(embedding, clip_shape, tubelet):
    probe = torch.rand(1, *clip_shape).requires_grad_()
    embedding(probe).sum().backward()
    return bool((probe.grad != 0).all())


def sound_by_zeros(embedding, clip_shape, tubelet):
    clip = torch.zeros(*clip_shape)
    same = embedding(clip[None])
    return bool((same == embedding(clip[None])).all())


def sound_of_convolutions(embedding, clip_shape, tubelet):
    return isinstance(getattr(embedding, "projection", None), nn.Conv3d)


def read_everything(embedding, clip, i, s):
    probe = clip.clone().requires_grad_()
    embedding(probe[None]).sum().backward()
    return probe.grad != 0


def read_with_batch(embedding, clip, i, s):
    return read_by_grad(embedding, clip, i, s)[None]


def read_in_place(embedding, clip, i, s):
    clip.requires_grad_()
    embedding(clip[None])[0, i, s].sum().backward()
    return clip.grad != 0


def read_swapped(embedding, clip, i, s):
    return read_by_grad(embedding, clip, min(s, 1), i)


def both(read=read_by_grad, sound=test_by_cut):
    return read, sound


def read_the_first_number(embedding, clip, i, s):
    x = clip[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(embedding(x)[0, i, s, 0], x)
    return gradient[0] != 0


def test_on_zeros(embedding, clip_shape, tubelet):
    clip = torch.zeros(clip_shape)
    nt, S = cut(clip[None], tubelet).shape[1:3]
    for i in range(nt):
        for s in range(S):
            found = cut(read_by_grad(embedding, clip, i, s)[None], tubelet)[0]
            expected = torch.zeros_like(found)
            expected[i, s] = True
            if not torch.equal(found, expected):
                return False
    return True


test_on_zeros.__test__ = False  # an answer, not a test of ours


test_reads_its_boxes = run_cases(
    unpacked(ch03.check_reads_its_boxes),
    right=[
        Named("grad and cut", read_by_grad, test_by_cut),
        Named("backward and slices", read_by_backward, sound_by_slices),
        Named("changing voxels, numpy", read_by_change, sound_as_numpy),
        Named("the embedding's grid", read_by_grad, sound_by_its_grid),
    ],
    wrong={
        "the first number of a token alone": (both(read=read_the_first_number), "not at the first alone"),
        "read: another clip": (both(read=read_a_clip_of_its_own), "take the gradient at the clip that is given"),
        "a clip of zeros": (both(sound=test_on_zeros), "take a random clip, not zeros"),
        "always True": (both(sound=lambda *_: True), "finds nothing wrong .* only reshaped"),
        "always False": (both(sound=lambda *_: False), "refuses the package's"),
        "shapes only": (both(sound=sound_by_shape), "finds nothing wrong .* only reshaped"),
        "union only": (both(sound=sound_by_union), "finds nothing wrong .* only reshaped"),
        "first token": (both(sound=of_tokens(lambda nt, n: [(0, 0)])), "finds nothing wrong .* height and width"),
        "first time index": (
            both(sound=of_tokens(lambda nt, n: [(0, s) for s in range(n)])),
            "very last two tokens|time runs backwards",
        ),
        "first place": (both(sound=of_tokens(lambda nt, n: [(i, 0) for i in range(nt)])), "height and width"),
        "all but the last": (both(sound=of_tokens(lambda nt, n: every(nt, n)[:-2])), "very last two tokens"),
        "only its own, perhaps not all": (
            both(sound=of_tokens(every, lambda boxes, i, s: boxes.sum() == boxes[i, s].sum())),
            "misses the others",
        ),
        "all of its own, perhaps more": (
            both(sound=of_tokens(every, lambda boxes, i, s: boxes[i, s].all())),
            "neighbours",
        ),
        "right number of voxels": (
            both(sound=of_tokens(every, lambda boxes, i, s: boxes.sum() == boxes[i, s].numel())),
            "only reshaped",
        ),
        "by its type": (both(sound=sound_of_convolutions), "refuses the cut by rearrange"),
        "no return": (both(sound=lambda *_: None), "must be True or False"),
        "a tensor": (both(sound=lambda e, c, p: torch.ones(2, 3)), "must be True or False"),
        "by zeros": (both(sound=sound_by_zeros), "finds nothing wrong"),
        "test not written": (both(sound=not_written), "still to be written"),
        "read: all tokens": (both(read=read_everything), "this one token only"),
        "read: with the batch": (both(read=read_with_batch), "axis for the batch"),
        "read: gradients": (
            both(read=lambda e, c, i, s: read_by_grad(e, c, i, s).float()),
            "True or False for each voxel",
        ),
        "read: inverted": (both(read=lambda e, c, i, s: ~read_by_grad(e, c, i, s)), "not read"),
        "read: first channel": (both(read=lambda e, c, i, s: read_by_grad(e, c, i, s)[0]), "3 axes instead of 4"),
        "read: in place": (both(read=read_in_place), "requires_grad has changed"),
        "read: i and s swapped": (both(read=read_swapped), "wrong for"),
        "read: no return": (both(read=lambda *_: None), "is None"),
        "read: not written": (both(read=not_written), "still to be written"),
    },
)

# ---- 03.7 positions


class Positions(nn.Module):
    def __init__(self, nt, places, dim):
        super().__init__()
        self.p = nn.Parameter(0.02 * torch.randn(1, nt, places, dim))

    def forward(self, tokens):
        return tokens + self.p


class PositionsByInit(nn.Module):
    def __init__(self, nt, places, dim):
        super().__init__()
        self.table = nn.Parameter(torch.empty(nt, places, dim))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, z):
        return self.table + z


class PositionsByEmbedding(nn.Module):
    def __init__(self, nt, places, dim):
        super().__init__()
        self.table = nn.Embedding(nt * places, dim)
        nn.init.trunc_normal_(self.table.weight, std=0.02)

    def forward(self, tokens):
        return tokens + self.table.weight.view(tokens.shape[1:])


def positions_with(make, forward=lambda self, z: z + self.p):
    """A module whose table is make(nt, places, dim)."""

    class Wrong(nn.Module):
        def __init__(self, nt, places, dim):
            super().__init__()
            self.p = make(nt, places, dim)

    Wrong.forward = forward
    return Wrong


def table(nt, places, dim):
    return nn.Parameter(0.02 * torch.randn(1, nt, places, dim))


def added_in_place(self, tokens):
    tokens += self.p
    return tokens


def similarity(positions, grid, place):
    unit = positions / positions.norm(dim=-1, keepdim=True)
    volume = unit.view(*grid, -1)
    return volume @ volume[tuple(place)]


def similarity_by_torch(positions, grid, place):
    i, j, k = place
    nt, nh, nw = grid
    n = i * nh * nw + j * nw + k
    return F.cosine_similarity(positions, positions[n : n + 1], dim=1).reshape(nt, nh, nw)


def similarity_by_einops(positions, grid, place):
    nt, nh, nw = grid
    p = F.normalize(rearrange(positions, "(nt nh nw) d -> nt nh nw d", nt=nt, nh=nh), dim=-1)
    return einops.einsum(p, p[place[0], place[1], place[2]], "nt nh nw d, d -> nt nh nw").detach()


def similarity_in_numpy(positions, grid, place):
    p = positions.detach().numpy()
    p = p / np.linalg.norm(p, axis=1, keepdims=True)
    return (p @ p[np.ravel_multi_index(place, grid)]).reshape(grid)


def pair_of(module=Positions, map=similarity):
    return module, map


def number_of(place, grid):
    return (place[0] * grid[1] + place[1]) * grid[2] + place[2]


class ScaledInForward(nn.Module):
    def __init__(self, nt, places, dim):
        super().__init__()
        self.p = nn.Parameter(torch.randn(nt, places, dim))

    def forward(self, tokens):
        return tokens + 0.02 * self.p


test_positions = run_cases(
    unpacked(ch03.check_positions),
    right=[
        Named("parameter", Positions, similarity),
        Named("init", PositionsByInit, similarity_by_torch),
        Named("embedding table", PositionsByEmbedding, similarity_by_einops),
        Named("numpy map", Positions, similarity_in_numpy),
    ],
    wrong={
        "scaled in forward": (pair_of(ScaledInForward), "is scaled in forward"),
        "one vector for all": (
            pair_of(positions_with(lambda nt, s, dim: nn.Parameter((0.02 * torch.randn(dim)).repeat(nt, s, 1)))),
            "several places have the same vector|standard deviation|mean",
        ),
        "no parameter": (pair_of(positions_with(lambda *s: 0.02 * torch.randn(1, *s))), "no parameters"),
        "frozen": (
            pair_of(positions_with(lambda *s: nn.Parameter(0.02 * torch.randn(1, *s), requires_grad=False))),
            "requires_grad=False",
        ),
        "one per clip": (pair_of(positions_with(lambda *s: nn.Parameter(0.02 * torch.randn(4, *s)))), "same for all"),
        "per place only": (pair_of(positions_with(lambda nt, n, d: table(1, n, d))), "one vector of"),
        "std 1": (pair_of(positions_with(lambda *s: nn.Parameter(torch.randn(1, *s)))), "multiply by it"),
        "mean 0.02": (
            pair_of(positions_with(lambda *s: nn.Parameter(nn.init.normal_(torch.empty(1, *s), 0.02)))),
            "say std=0.02",
        ),
        "rand": (pair_of(positions_with(lambda *s: nn.Parameter(0.02 * torch.rand(1, *s)))), "torch.rand runs from 0"),
        "zeros": (
            pair_of(positions_with(lambda *s: nn.Parameter(torch.zeros(1, *s)))),
            "standard deviation 0, expected",
        ),
        "not added": (pair_of(positions_with(table, lambda self, z: z)), "do not arrive|no gradient|same"),
        "multiplied": (pair_of(positions_with(table, lambda self, z: z * (1 + self.p))), r"multiplied by 1 \+"),
        "only multiplied": (pair_of(positions_with(table, lambda self, z: z * self.p)), "multiplied by the positions"),
        "dropout": (pair_of(positions_with(table, lambda self, z: z + F.dropout(self.p, 0.1))), "without dropout"),
        "tokens detached": (
            pair_of(positions_with(table, lambda self, z: z.detach() + self.p)),
            "no gradient reaches tokens",
        ),
        "appended": (
            pair_of(positions_with(table, lambda self, z: torch.cat((z, self.p.expand_as(z)), -1))),
            "expected \\[1, 3, 10, 40\\]",
        ),
        "replaced": (pair_of(positions_with(table, lambda self, z: self.p.expand_as(z))), "were replaced"),
        "in place": (pair_of(positions_with(table, added_in_place)), "changes the tokens"),
        "detached": (pair_of(positions_with(table, lambda self, z: z + self.p.data)), "no gradient"),
        "not written": (pair_of(NotWritten), "still to be written"),
        "map: dot products": (
            pair_of(map=lambda p, g, at: (p @ p[number_of(at, g)]).view(g)),
            "these are dot products",
        ),
        "map: one side": (
            pair_of(map=lambda p, g, at: (p @ F.normalize(p, dim=-1)[number_of(at, g)]).view(g)),
            "divide the others",
        ),
        "map: the other side": (
            pair_of(map=lambda p, g, at: (F.normalize(p, dim=-1) @ p[number_of(at, g)]).view(g)),
            "divide that of the place, too",
        ),
        "map: squares": (
            pair_of(map=lambda p, g, at: ((q := p / p.square().sum(-1, keepdim=True)) @ q[number_of(at, g)]).view(g)),
            "the square of its length",
        ),
        "map: without keepdim": (
            pair_of(map=lambda p, g, at: ((q := p / p.norm(dim=-1)) @ q[number_of(at, g)]).view(g)),
            "keepdim=True keeps",
        ),
        "map: row and column": (
            pair_of(map=lambda p, g, at: similarity(p, g, (at[0], at[2], at[1]))),
            "row and column of the place were swapped",
        ),
        "map: columns": (
            pair_of(map=lambda p, g, at: (F.normalize(p, dim=0) @ F.normalize(p, dim=0)[number_of(at, g)]).view(g)),
            "over the last axis",
        ),
        "map: whole length": (
            pair_of(map=lambda p, g, at: ((p / p.norm()) @ (p / p.norm())[number_of(at, g)]).view(g)),
            "each has its own",
        ),
        "map: flat": (pair_of(map=lambda p, g, at: similarity(p, g, at).flatten()), "still has only one axis"),
        "map: all pairs": (
            pair_of(map=lambda p, g, at: F.normalize(p, dim=-1) @ F.normalize(p, dim=-1).T),
            "for the one place",
        ),
        "map: distances": (
            pair_of(map=lambda p, g, at: (p - p[number_of(at, g)]).norm(dim=-1).view(g)),
            "these are distances",
        ),
        "map: place reversed": (
            pair_of(map=lambda p, g, at: similarity(p, g, [n % m for n, m in zip(at[::-1], g)])),
            "read in reverse",
        ),
        "map: grid's height and width": (
            pair_of(map=lambda p, g, at: similarity(p, g, at).reshape(g[0], g[2], g[1]).transpose(1, 2)),
            "swapped",
        ),
        "map: in place": (
            pair_of(map=lambda p, g, at: similarity(p.div_(p.norm(dim=-1, keepdim=True)), g, at)),
            "changes the",
        ),
        "map: softmax": (
            pair_of(map=lambda p, g, at: similarity(p, g, at).flatten().softmax(0).view(g)),
            "softmax",
        ),
        "map: 7 × 7 × 7": (pair_of(map=lambda p, g, at: similarity(p, (7, 7, 7), at)), "invalid for input"),
        "map: no return": (pair_of(map=lambda *_: None), "is None|a NoneType|None"),
        "map: not written": (pair_of(map=not_written), "still to be written"),
    },
)

# ---- the finished versions, and the task of the chapter


def test_the_finished_versions_agree_with_each_other():
    loops, cut, join = ready.load()["03.1"]
    clips = torch.rand(2, 3, 4, 6, 10)
    assert torch.equal(loops(clips[1], (2, 3, 5)), cut(clips, (2, 3, 5))[1].flatten(0, 1))
    assert torch.equal(join(cut(clips, (2, 3, 5)), (2, 2, 2), (2, 3, 5)), clips)


def test_slabs_need_positions():
    (embedding,), (positions, _) = ready.load()["03.3"], ready.load()["03.7"]
    right = [
        train_on_slabs(embedding((1, 8, 8, 8), 32, (4, 4, 4)), added) for added in (positions(2, 4, 32), nn.Identity())
    ]
    assert right[0] > 0.97 and 0.4 < right[1] < 0.6
