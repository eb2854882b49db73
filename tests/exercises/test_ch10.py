"""Chapter 10: what its checks accept and refuse, its drawings, and the weights that it reads."""

import copy

import numpy
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from vivit_edu import build_model, load_pretrained, load_volumes
from vivit_edu.course import pretraining
from vivit_edu.course.checks import ch10
from vivit_edu.course.ready import ch10 as finished
from vivit_edu.course.recorded import recorded
from vivit_edu.course.schematics import surgery as drawings
from vivit_edu.weights.files import torchvision_normalisation

from .cases import run_cases

SIZES = {"dim": 64, "depth": 2, "heads": 4, "mlp_dim": 256}

# ---- 10.1


def average_by_einops(filters, t):
    return repeat(filters / t, "d c h w -> d c t h w", t=t)


def average_by_stack(filters, t):
    return torch.stack([filters] * t, dim=2) / t


def average_by_expand(filters, t):
    return filters.unsqueeze(2).expand(-1, -1, t, -1, -1) / t


def average_by_einsum(filters, t):
    return torch.einsum("dchw,t->dcthw", filters, torch.full((t,), 1 / t))


def average_by_numpy(filters, t):
    return torch.from_numpy((filters.numpy()[:, :, None] / t).repeat(t, axis=2))


def average_in_place(filters, t):
    filters /= t
    return torch.stack([filters] * t, dim=2)


test_average_frames = run_cases(
    lambda average: ch10.check_tubelet_filters(average, into_zeros),
    right=[average_by_einops, average_by_stack, average_by_expand, average_by_einsum, average_by_numpy],
    wrong={
        "not divided": (lambda w, t: torch.stack([w] * t, 2), "average_frames: every frame holds the whole filter"),
        "the notebook's seven": (lambda w, t: average_by_einops(w, 7), "(has|have) shape"),
        "divided by seven": (lambda w, t: torch.stack([w] * t, 2) / 7, "7 is written into the code"),
        "expanded without an axis": (lambda w, t: w.expand(-1, -1, t, -1, -1) / t, "time is a new axis, the third"),
        "central frame": (lambda w, t: into_zeros(w, t), "which comes next"),
        "times t": (lambda w, t: torch.stack([w] * t, 2) * t, "add up to the filter times t"),
        "twice": (lambda w, t: torch.stack([w / t] * t, 2) / t, "divided by t twice"),
        "square root": (lambda w, t: torch.stack([w] * t, 2) / t**0.5, "square root"),
        "time last": (lambda w, t: torch.stack([w / t] * t, -1), "yours stands last"),
        "time before the channels": (lambda w, t: torch.stack([w / t] * t, 1), "before the channels"),
        "time first": (lambda w, t: torch.stack([w / t] * t), "yours stands first"),
        "joined with the channels": (lambda w, t: repeat(w / t, "d c h w -> d (c t) h w", t=t), "joined with"),
        "first frame only": (lambda w, t: F.pad(w.unsqueeze(2) / t, (0, 0, 0, 0, 0, t - 1)), "only the first frame"),
        "mean over pixels": (
            lambda w, t: (w.mean((2, 3), True) / t)[:, :, None].expand(-1, -1, t, *w.shape[2:]),
            "average over the filter's own pixels",
        ),
        "float32 whatever comes": (lambda w, t: average_by_einops(w.float(), t), "with tensors of float64"),
        "in place": (average_in_place, "changes the .* that it was given"),
        "no return": (lambda w, t: None, "None"),
    },
)


def into_zeros(filters, t):
    inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:], dtype=filters.dtype)
    inflated[:, :, t // 2] = filters
    return inflated


def by_product(filters, t):
    return torch.einsum("dchw,t->dcthw", filters, F.one_hot(torch.tensor(t // 2), t).to(filters.dtype))


def by_padding(filters, t):
    return F.pad(filters.unsqueeze(2), (0, 0, 0, 0, t // 2, t - 1 - t // 2))


@torch.no_grad()
def detached(filters, t):
    return into_zeros(filters.detach(), t)


def into_the_width(filters, t):
    inflated = filters.new_zeros(*filters.shape[:2], t, *filters.shape[2:])
    inflated[..., t // 2] = filters
    return inflated


def placed(frame, scale=1):
    def solution(filters, t):
        inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:])
        inflated[:, :, frame(t)] = filters / (t if scale == "t" else scale)
        return inflated

    return solution


def along_width(filters, t):
    inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:])
    middle = filters.shape[-1] // 2
    inflated[..., middle] = filters[:, :, None, :, middle]
    return inflated


def along_height(filters, t):
    inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:])
    middle = filters.shape[-2] // 2
    inflated[..., middle, :] = filters[:, :, None, middle]
    return inflated


def written_into(filters, t):
    inflated = into_zeros(filters, t)
    filters.zero_()
    return inflated


test_central_frame = run_cases(
    lambda central: ch10.check_tubelet_filters(average_by_einops, central),
    right=[into_zeros, by_product, by_padding, detached],
    wrong={
        "float32 whatever comes": (lambda w, t: into_zeros(w.float(), t), "with tensors of float64"),
        "into the width": (into_the_width, r"time is axis 2, so write to \[:, :, t // 2\]"),
        "the notebook's seven frames": (lambda w, t: into_zeros(w, 7), "(has|have) shape"),
        "the notebook's frame 3": (placed(lambda t: min(3, t - 1)), "on the last frame"),
        "average": (lambda w, t: repeat(w / t, "d c h w -> d c t h w", t=t), "this is filter inflation"),
        "on every frame": (lambda w, t: torch.stack([w] * t, 2), "on every frame"),
        "along the width": (along_width, "along the width"),
        "along the height": (along_height, "along the height"),
        "divided by t": (placed(lambda t: t // 2, "t"), "divided by t"),
        "the other middle": (placed(lambda t: (t - 1) // 2), "even number"),
        "first frame": (placed(lambda t: 0), "on the first frame"),
        "last frame": (placed(lambda t: -1), "on the last frame"),
        "time behind the height": (lambda w, t: into_zeros(w, t).transpose(2, 3), "behind the height"),
        "time last": (lambda w, t: into_zeros(w, t).movedim(2, -1), "yours stands last"),
        "time before the channels": (lambda w, t: into_zeros(w, t).transpose(1, 2), "before the channels"),
        "given filters zeroed": (written_into, "changes the .* that it was given"),
        "no return": (lambda w, t: None, "None"),
        "not written": (lambda w, t: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 10.2


def by_einops(positions, nt):
    return repeat(positions[:, 1:], "1 s d -> 1 (t s) d", t=nt)


def by_torch(positions, nt):
    return positions[:, 1:].repeat(1, nt, 1)


def by_tokens(positions, nt):
    tokens = [positions[0, 1 + s] for t in range(nt) for s in range(positions.shape[1] - 1)]
    return torch.stack(tokens).unsqueeze(0)


def by_values(positions, nt):
    return torch.cat([positions.data[:, 1:]] * nt, dim=1).detach()


def interpolated(positions, nt):
    tokens = nt * (positions.shape[1] - 1)
    return F.interpolate(positions.transpose(1, 2), size=tokens, mode="linear").transpose(1, 2)


def interpolated_patches(positions, nt):
    return interpolated(torch.cat([positions[:, 1:], positions[:, :1]], 1)[:, :-1], nt)


def regrouped(positions, nt):
    patches = positions[:, 1:]
    return patches.transpose(1, 2).repeat(1, 1, nt).reshape(1, -1, positions.shape[2])


def zeroed(positions, nt):
    repeated = by_einops(positions, nt)
    positions[:, :1] = 0
    return repeated


test_repeat_positions = run_cases(
    ch10.check_repeat_positions,
    right=[by_einops, by_torch, by_tokens, by_values],
    wrong={
        "cut along the batch": (lambda p, n: repeat(p[1:], "1 s d -> 1 (t s) d", t=n), "cuts the batch axis"),
        "cut along the batch, torch": (lambda p, n: p[1:].repeat(1, n, 1), "cuts the batch axis"),
        "cut after the repetition": (lambda p, n: p.repeat(1, n, 1)[:, 1:], "the other copies still hold it"),
        "always four": (lambda p, n: by_einops(p, 4), "(has|have) shape"),
        "with noise": (lambda p, n: by_einops(p, n) + 1e-3, "(is|are) wrong in 72"),
        "order (s nt)": (lambda p, n: p[:, 1:].repeat_interleave(n, 1), r"order \(s nt\)"),
        "the notebook's size": (lambda p, n: p[:, 1:17].repeat(1, n, 1), "(has|have) shape"),
        "cls in each copy": (lambda p, n: p.repeat(1, n, 1), "once in each copy"),
        "cls in front": (lambda p, n: torch.cat([p[:, :1], by_torch(p, n)], 1), "still stands in front"),
        "last left out": (lambda p, n: p[:, :-1].repeat(1, n, 1), "last position was left out"),
        "not repeated": (lambda p, n: p[:, 1:], "nothing repeated"),
        "divided": (lambda p, n: by_torch(p, n) / n, "divided by nt"),
        "Model 3's grid": (lambda p, n: repeat(p[:, 1:], "1 s d -> 1 t s d", t=n), "Models 3 and 4"),
        "along the batch": (lambda p, n: p[:, 1:].repeat(n, 1, 1), "along the batch"),
        "without the batch": (lambda p, n: by_torch(p, n)[0], "batch axis is lost"),
        "interpolated": (
            lambda p, n: F.interpolate(p[:, 1:].mT, size=n * (p.shape[1] - 1), mode="linear").mT,
            "blurs space",
        ),
        "interpolated with cls": (interpolated, "interpolated along the sequence"),
        "regrouped": (regrouped, "regrouped"),
        "cls zeroed in place": (zeroed, "changes the .* that it was given"),
        "no return": (lambda p, n: None, "None"),
    },
)

# ---- 10.3


def resized_by_einops(positions, old, new):
    picture = rearrange(positions, "1 (h w) d -> 1 d h w", h=old[0])
    return rearrange(F.interpolate(picture, size=new, mode="bilinear"), "1 d h w -> 1 (h w) d")


def resized_by_view(positions, old, new):
    picture = positions.transpose(1, 2).reshape(1, -1, *old)
    return nn.Upsample(size=new, mode="bilinear")(picture).flatten(2).transpose(1, 2)


def resized_by_channels(positions, old, new):
    channels = [
        F.interpolate(channel.reshape(1, 1, *old), size=new, mode="bilinear").flatten()
        for channel in positions[0].unbind(-1)
    ]
    return torch.stack(channels, dim=-1).unsqueeze(0)


@torch.no_grad()
def resized_by_values(positions, old, new):
    return resized_by_einops(positions.data, old, new)


def resized_by_a_view(positions, old, new):
    picture = positions.view(1, -1, *old)
    return rearrange(F.interpolate(picture, size=new, mode="bilinear"), "1 d h w -> 1 (h w) d")


def resized(mode="bilinear", read="(h w)", write="(h w)", h=0, **options):
    def solution(positions, old, new):
        picture = rearrange(positions, f"1 {read} d -> 1 d h w", h=old[h])
        return rearrange(F.interpolate(picture, size=new, mode=mode, **options), f"1 d h w -> 1 {write} d")

    return solution


def resized_by_reshape(positions, old, new):
    picture = positions.reshape(1, positions.shape[2], *old)
    return F.interpolate(picture, size=new, mode="bilinear").reshape(1, -1, positions.shape[2])


def put_back_by_reshape(positions, old, new):
    picture = rearrange(positions, "1 (h w) d -> 1 d h w", h=old[0])
    return F.interpolate(picture, size=new, mode="bilinear").reshape(1, -1, positions.shape[2])


test_resize_grid = run_cases(
    ch10.check_resize_grid,
    right=[resized_by_einops, resized_by_view, resized_by_channels, resized_by_values],
    wrong={
        "along the sequence": (
            lambda p, old, new: F.interpolate(p.mT, size=new[0] * new[1], mode="linear").mT,
            "across the ends of lines",
        ),
        "read column by column": (resized(read="(w h)"), "the grid was read column by column"),
        "both column by column": (resized(read="(w h)", write="(w h)"), "both grids were read column by column"),
        "nh from old[1]": (resized(h=1), r"nh is old\[0\]"),
        "antialias": (resized(antialias=True), "antialias=True smooths .*leave it out"),
        "a view": (resized_by_a_view, "made by a view or reshape"),
        "put back column by column": (resized(write="(w h)"), "resized grid was read column by column"),
        "reshape": (resized_by_reshape, "D has to be moved in front first"),
        "put back by reshape": (put_back_by_reshape, "put back with a reshape"),
        "nearest": (resized("nearest"), "copies the nearest"),
        "bicubic": (resized("bicubic"), "this is bicubic"),
        "corners": (resized(align_corners=True), "align_corners"),
        "height for width": (lambda p, old, new: resized_by_einops(p, old, new[::-1]), "are exchanged"),
        "the mean": (lambda p, old, new: p.mean(1, True).expand(-1, new[0] * new[1], -1), "the mean of all"),
        "a picture": (
            lambda p, old, new: F.interpolate(
                rearrange(p, "1 (h w) d -> 1 d h w", h=old[0]), size=new, mode="bilinear"
            ),
            "turn it into a sequence again",
        ),
        "a square": (
            lambda p, old, new: resized_by_einops(p, [int(p.shape[1] ** 0.5)] * 2, new),
            "take sizes from the arguments",
        ),
        "the notebook's grid": (lambda p, old, new: resized_by_einops(p, old, (7, 7)), "(has|have) shape"),
        "without the batch": (lambda p, old, new: resized_by_einops(p, old, new)[0], "(has|have) shape"),
        "no return": (lambda p, old, new: None, "None"),
    },
)

# ---- 10.4


def surgery_by_shape(image, video, inflate):
    state = dict(video)
    for name, tensor in image.items():
        if tensor.ndim == 4:
            tensor = inflate(tensor, video[name].shape[2])
        if name == "positions":
            tensor = tensor.repeat(1, video[name].shape[1] // tensor.shape[1], 1)
        state[name] = tensor
    return state


def surgery_by_name(image, video, inflate):
    state = {**video, **image}
    tubelet = video["embedding.projection.weight"]
    state["embedding.projection.weight"] = inflate(image["embedding.projection.weight"], tubelet.shape[2])
    places, tokens = image["positions"].shape[1], video["positions"].shape[1]
    state["positions"] = torch.cat([image["positions"]] * (tokens // places), dim=1)
    return state


def surgery_by_cases(image, video, inflate):
    def of(name, ours):
        if name not in image:
            return ours
        if name == "positions":
            return repeat(
                image[name], "1 s d -> 1 (t s) d", s=image[name].shape[1], t=ours.shape[1] // image[name].shape[1]
            )
        return inflate(image[name], ours.shape[2]) if ours.ndim == 5 else image[name]

    return {name: of(name, ours) for name, ours in video.items()}


def spoiled(change):
    def solution(image, video, inflate):
        state = surgery_by_name(image, video, inflate)
        return change(state, image, video) or state

    return solution


def puts(name, value):
    return spoiled(lambda state, image, video: state.update({name: value(image, video)}))


W, P = "embedding.projection.weight", "positions"


def surgery_written_into(image, video, inflate):
    image.pop("positions")
    return video


def only_blocks(image, video, inflate):
    return {**video, **{name: value for name, value in image.items() if "blocks" in name}}


def from_fresh(image, video, inflate):
    state = surgery_by_name(image, video, inflate)
    state.update({name: video[name] for name in state if name.endswith("bias")})
    return state


test_surgery = run_cases(
    ch10.check_surgery,
    right=[surgery_by_shape, surgery_by_name, surgery_by_cases],
    wrong={
        "video as it is": (lambda image, video, inflate: dict(video), "still that of `video`"),
        "image as it is": (lambda image, video, inflate: dict(image), "is missing"),
        "only what fits": (
            lambda image, video, inflate: {
                name: image[name] if name in image and image[name].shape == ours.shape else ours
                for name, ours in video.items()
            },
            "embedding.projection.weight is still that of `video`",
        ),
        "filters of the video": (puts(W, lambda image, video: video[W]), r"inflate\(filters, t\)"),
        "positions of the video": (puts(P, lambda image, video: video[P]), "for every time index"),
        "filters left": (puts(W, lambda image, video: image[W]), "filters are still the image model's"),
        "positions left": (puts(P, lambda image, video: image[P]), "one for each of the S places"),
        "order (s nt)": (
            puts(P, lambda image, video: image[P].repeat_interleave(video[P].shape[1] // image[P].shape[1], 1)),
            r"order \(s nt\)",
        ),
        "always the central frame": (
            puts(W, lambda image, video: into_zeros(image[W], video[W].shape[2])),
            "another function than `inflate`",
        ),
        "full strength": (
            puts(W, lambda image, video: torch.stack([image[W]] * video[W].shape[2], 2)),
            "at full strength|another function",
        ),
        "a cls token that is not there": (
            puts(P, lambda image, video: image[P][:, 1:].repeat(1, video[P].shape[1] // image[P].shape[1], 1)),
            "no cls token",
        ),
        "first time index only": (
            puts(P, lambda image, video: torch.cat([image[P], video[P][:, image[P].shape[1] :]], 1)),
            "only the first time index",
        ),
        "only the blocks": (only_blocks, "still that of `video`"),
        "fresh biases": (from_fresh, "bias is still that of `video`"),
        "head zeroed": (
            puts("head.weight", lambda image, video: torch.zeros_like(video["head.weight"])),
            "stays as it is",
        ),
        "head left out": (
            spoiled(lambda state, image, video: state.pop("head.weight").new_zeros(0).sum() * 0 and None),
            "is missing",
        ),
        "the notebook's four times": (puts(P, lambda image, video: image[P].repeat(1, 4, 1)), "(has|have) shape"),
        "popped": (surgery_written_into, "changes the .* that it was given|holds other keys"),
        "a list": (lambda image, video, inflate: list(surgery_by_name(image, video, inflate)), "expected a dict"),
        "no return": (lambda image, video, inflate: None, "expected a dict"),
    },
)

# ---- 10.5


def fill_by_state_dicts(block, image_block):
    pairs = {"norm_space": "norm_attention", "space_attention": "attention", "norm_mlp": "norm_mlp", "mlp": "mlp"}
    for ours, theirs in pairs.items():
        getattr(block, ours).load_state_dict(getattr(image_block, theirs).state_dict())
    nn.init.zeros_(block.time_attention.out.weight)
    nn.init.zeros_(block.time_attention.out.bias)


def fill_by_names(block, image_block):
    state = block.state_dict()
    for name, value in image_block.state_dict().items():
        name = name.replace("norm_attention", "norm_space")
        state[name.replace("attention.", "space_attention.") if name.startswith("attention.") else name] = value
    for name in ("time_attention.out.weight", "time_attention.out.bias"):
        state[name] = torch.zeros_like(state[name])
    block.load_state_dict(state)


def fill_by_copying(block, image_block):
    with torch.no_grad():
        for ours, theirs in (
            (block.norm_space, image_block.norm_attention),
            (block.space_attention, image_block.attention),
            (block.norm_mlp, image_block.norm_mlp),
            (block.mlp, image_block.mlp),
        ):
            for one, other in zip(ours.parameters(), theirs.parameters()):
                one.copy_(other)
        for parameter in block.time_attention.out.parameters():
            parameter.zero_()


def filled_but(change):
    def solution(block, image_block):
        fill_by_state_dicts(block, image_block)
        with torch.no_grad():
            change(block, image_block)

    return solution


def fill_shared(block, image_block):
    fill_by_state_dicts(block, image_block)
    block.space_attention.qkv.weight = image_block.attention.qkv.weight


def fill_sharing_memory(block, image_block):
    fill_by_state_dicts(block, image_block)
    for p, q in zip(block.mlp.parameters(), image_block.mlp.parameters()):
        p.data = q.data


def fill_leaves(block, image_block):
    block.mlp.load_state_dict(image_block.mlp.state_dict())
    block.time_attention.out.weight.zero_()


def fill_frozen(block, image_block):
    fill_by_state_dicts(block, image_block)
    block.space_attention.requires_grad_(False)


def fill_over_time(block, image_block):
    fill_by_state_dicts(block, image_block)
    block.time_attention.load_state_dict(image_block.attention.state_dict())


def fill_swapped(block, image_block):
    fill_by_state_dicts(block, image_block)
    block.norm_space.load_state_dict(image_block.norm_mlp.state_dict())


def noise(parameter):
    parameter.copy_(torch.ones_like(parameter))


test_fill_block = run_cases(
    ch10.check_fill_block,
    right=[fill_by_state_dicts, fill_by_names, fill_by_copying],
    wrong={
        "nothing": (lambda block, image_block: None, "`block` is as it was"),
        "a copy": (lambda block, image_block: fill_by_names(copy.deepcopy(block), image_block), "and not a copy of it"),
        "time forgotten": (
            lambda block, image_block: block.mlp.load_state_dict(image_block.mlp.state_dict()),
            "time_attention.out.weight is not zero",
        ),
        "shared memory": (fill_sharing_memory, "own tensor"),
        "leaves written into": (fill_leaves, r"with torch.no_grad\(\)"),
        "copied into time, too": (fill_over_time, "a copy of the image's attention"),
        "all of it zero": (
            filled_but(lambda block, _: [p.zero_() for p in block.time_attention.parameters()]),
            "two zero factors",
        ),
        "queries zero": (filled_but(lambda block, _: block.time_attention.qkv.weight.zero_()), "two zero factors"),
        "bias left": (filled_but(lambda block, _: noise(block.time_attention.out.bias)), "out.bias is not zero"),
        "weight left": (filled_but(lambda block, _: noise(block.time_attention.out.weight)), "out.weight is not zero"),
        "MLP forgotten": (filled_but(lambda block, _: noise(block.mlp[0].weight)), "mlp.0.weight is not"),
        "norm forgotten": (filled_but(lambda block, _: noise(block.norm_space.bias)), "norm_space.bias is not"),
        "norms exchanged": (fill_swapped, "norm_space.weight is not the image block's norm_attention"),
        "attention forgotten": (
            filled_but(lambda block, _: noise(block.space_attention.out.weight)),
            "space_attention.out.weight is not",
        ),
        "norm of time zeroed": (filled_but(lambda block, _: block.norm_time.weight.zero_()), "norm_time.weight has"),
        "shared": (fill_shared, "own tensor"),
        "frozen": (fill_frozen, "is frozen"),
        "the image block changed": (
            filled_but(lambda _, image_block: image_block.mlp[0].weight.zero_()),
            "changes the image_block",
        ),
        "zeros in space": (
            filled_but(lambda block, _: block.space_attention.out.weight.zero_()),
            "space_attention.out.weight is not",
        ),
        "not written": (lambda block, _: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 10.6


def pooled(model, clips):
    tokens = rearrange(model.embedding(clips), "b nt s d -> b (nt s) d")
    return model.encoder(tokens + model.positions).mean(dim=1)


def tried(
    load, model, image_model, *, std=0.2, still=True, compare=None, pictures=None, copies=True, random=True, seen=pooled
):
    if copies:
        model, image_model = copy.deepcopy(model), copy.deepcopy(image_model)
    with torch.no_grad():
        if random:
            for parameter in (*model.parameters(), *image_model.parameters()):
                parameter.normal_(std=std)
        load(model, image_model)
        clips = torch.rand(3, *image_model.config.clip_shape) if pictures is None else pictures
        t = model.config.clip_shape[1]
        clip = clips.expand(-1, -1, t, -1, -1) if still else torch.rand(3, 1, t, *clips.shape[3:])
        one, other = seen(model, clip), seen(image_model, clips)
        return compare(one, other) if compare else torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def faithful_by_copies(load, model, image_model):
    return tried(load, model, image_model)


def faithful_by_repeat(load, model, image_model):
    model, image_model = copy.deepcopy(model).eval(), copy.deepcopy(image_model).eval()
    with torch.no_grad():
        for parameter in image_model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
        load(model, image_model)
        picture = torch.rand(1, *image_model.config.clip_shape)
        clip = picture.repeat(1, 1, model.config.clip_shape[1], 1, 1)
        return bool((pooled(model, clip) - pooled(image_model, picture)).abs().max() < 1e-3)


def faithful_by_tokens(load, model, image_model):
    model, image_model = copy.deepcopy(model), copy.deepcopy(image_model)
    with torch.no_grad():
        for parameter in image_model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
        load(model, image_model)
        picture = torch.rand(2, *image_model.config.clip_shape)
        tokens = image_model.embedding(picture)[:, 0] + image_model.positions
        ours = model.embedding(picture.expand(-1, -1, model.config.clip_shape[1], -1, -1))
        ours = ours.flatten(1, 2) + model.positions
        same = torch.allclose(ours, tokens.repeat(1, model.grid[0], 1), atol=1e-4)
        after = [model.encoder(ours).mean(1), image_model.encoder(tokens).mean(1)]
        return same and torch.allclose(*after, atol=1e-3)


def faithful_filled_late(load, model, image_model):
    model, image_model = copy.deepcopy(model), copy.deepcopy(image_model)
    load(model, image_model)
    return tried(lambda *_: None, model, image_model, copies=False)


def faithful_to_shapes(load, model, image_model):
    load(copy.deepcopy(model), image_model)
    return True


def faithful_by_sums(load, model, image_model):
    model = copy.deepcopy(model)
    load(model, image_model)
    sums = [m.state_dict()["embedding.projection.weight"].sum() for m in (model, image_model)]
    return bool(torch.isclose(*sums, rtol=1e-3))


def faithful_by_blocks(load, model, image_model):
    model = copy.deepcopy(model)
    load(model, image_model)
    theirs = image_model.state_dict()
    return all(value.equal(theirs[name]) for name, value in model.state_dict().items() if "blocks" in name)


test_faithful = run_cases(
    ch10.check_faithful,
    right=[faithful_by_copies, faithful_by_repeat, faithful_by_tokens],
    wrong={
        "fresh weights": (lambda *a: tried(*a, random=False), "fresh"),
        "always True": (lambda *a: True, "calls this loader faithful"),
        "always False": (lambda *a: False, "calls this loader not faithful: filter inflation"),
        "only that it runs": (faithful_to_shapes, "calls this loader faithful"),
        "sums of the filters": (faithful_by_sums, "calls this loader"),
        "the blocks only": (faithful_by_blocks, "calls this loader faithful"),
        "a moving clip": (lambda *a: tried(*a, still=False), "not faithful: filter inflation"),
        "exactly equal": (lambda *a: tried(*a, compare=torch.equal), "not faithful: filter inflation"),
        "equal shapes": (lambda *a: tried(*a, compare=lambda x, y: x.shape == y.shape), "loader faithful"),
        "a black picture": (lambda *a: tried(*a, pictures=torch.zeros(2, 1, 1, 8, 8)), "loader faithful"),
        "a loose tolerance": (
            lambda *a: tried(*a, compare=lambda x, y: torch.allclose(x, y, atol=10)),
            "loader faithful",
        ),
        "on the models themselves": (lambda *a: tried(*a, copies=False), "changes the .*copy.deepcopy"),
        "the logits": (lambda *a: tried(*a, seen=lambda model, clips: model(clips)), "the head left fresh.*`pooled`"),
        "numbers too small": (lambda *a: tried(*a, std=0.02), "numbers too small for your tolerance"),
        "filled after loading": (faithful_filled_late, "filled after `load`"),
        "the numbers": (lambda *a: tried(*a, compare=lambda x, y: (x - y).abs()), "must be True or False"),
        "turned round": (lambda *a: not tried(*a), "wrong way round"),
        "no return": (lambda *a: None, "True or False"),
    },
)


def test_every_bad_loader_is_told_from_the_good_ones():
    video, image = ch10._fresh_pair()
    for name, (right, load) in ch10.LOADERS.items():
        assert finished.faithful(load, video, image) == right, name


# ---- 10.7


def wide(values):
    return values[:, None, None]


def by_formula(weight, bias, mean, std):
    weight = weight / wide(std)
    return weight, bias - (weight * wide(mean)).sum(dim=(1, 2, 3))


def by_einsum(weight, bias, mean, std):
    return torch.einsum("dchw,c->dchw", weight, 1 / std), bias - torch.einsum("dchw,c->d", weight, mean / std)


def by_asking(weight, bias, mean, std):
    """The bias is what the old filters say of a black image."""
    black = (-mean / std).reshape(1, 3, 1, 1).expand(1, 3, *weight.shape[2:])
    return weight / std.reshape(1, 3, 1, 1), F.conv2d(black, weight, bias).flatten()


def by_rows(weight, bias, mean, std):
    folded, share = torch.zeros_like(weight), torch.zeros_like(bias)
    for colour in range(3):
        folded[:, colour] = weight[:, colour] / std[colour]
    for row in range(len(bias)):
        share[row] = (folded[row] * wide(mean)).sum()
    return folded, bias - share


def by_numpy(weight, bias, mean, std):
    weight, bias, mean, std = (values.numpy() for values in (weight, bias, mean, std))
    weight = weight / std[:, None, None]
    return torch.from_numpy(weight), torch.from_numpy(bias - (weight * mean[:, None, None]).sum((1, 2, 3)))


@torch.no_grad()
def by_values(weight, bias, mean, std):
    return by_formula(weight.detach(), bias.data, mean, std)


def folded(weight=lambda w, m, s: w / wide(s), bias=lambda b, w, new, m, s: b - (new * wide(m)).sum(dim=(1, 2, 3))):
    def solution(w, b, m, s):
        return weight(w, m, s), bias(b, w, w / wide(s), m, s)

    return solution


def in_place(weight, bias, mean, std):
    weight /= wide(std)
    bias -= (weight * wide(mean)).sum(dim=(1, 2, 3))
    return weight, bias


test_fold_normalisation = run_cases(
    ch10.check_fold_normalisation,
    right=[by_formula, by_einsum, by_asking, by_rows, by_numpy, by_values],
    wrong={
        "the variance": (lambda w, b, m, s: by_formula(w, b, m, s**2), "weight is wrong"),
        "ImageNet's numbers": (
            lambda w, b, m, s: by_formula(
                w, b, torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            ),
            "ImageNet's std is written",
        ),
        "ImageNet's mean": (
            lambda w, b, m, s: by_formula(w, b, torch.tensor([0.485, 0.456, 0.406]), s),
            "ImageNet's mean is written",
        ),
        "std along the filters": (folded(lambda w, m, s: w / s[:, None, None, None]), "the colours are axis 1"),
        "no sum over the colours": (
            folded(bias=lambda b, w, new, m, s: b - (new * wide(m)).sum(dim=(2, 3))),
            "each filter has one bias",
        ),
        "sum over all": (folded(bias=lambda b, w, new, m, s: b - (new * wide(m)).sum()), "all filters at once"),
        "mean over pixels": (
            folded(bias=lambda b, w, new, m, s: b - (new * wide(m)).mean(dim=(2, 3)).sum(dim=1)),
            "rows and columns too",
        ),
        "an axis too many": (
            lambda w, b, m, s: (w / wide(s), by_formula(w, b, m, s)[1][:, None]),
            "2 axes instead of 1",
        ),
        "exchanged": (lambda *given: by_formula(*given)[::-1], "return the weight, then the bias"),
        "filters as they were": (folded(lambda w, m, s: w), "filters are as they were"),
        "multiplied": (folded(lambda w, m, s: w * wide(s)), "multiplied by std"),
        "std along the width": (folded(lambda w, m, s: w / s), "std was laid along the width"),
        "std along the height": (folded(lambda w, m, s: w / s[:, None]), "along the height"),
        "mean taken from the filters": (folded(lambda w, m, s: (w - wide(m)) / wide(s)), "moves the bias alone"),
        "filters times mean": (folded(lambda w, m, s: w * wide(m)), "multiplied by mean"),
        "bias as it was": (folded(bias=lambda b, *_: b), "bias is as it was"),
        "sign": (folded(bias=lambda b, w, new, m, s: b + (new * wide(m)).sum(dim=(1, 2, 3))), "the sign"),
        "old filters": (folded(bias=lambda b, w, new, m, s: b - (w * wide(m)).sum(dim=(1, 2, 3))), "old filters"),
        "own bias lost": (folded(bias=lambda b, w, new, m, s: -(new * wide(m)).sum(dim=(1, 2, 3))), "own bias"),
        "average": (folded(bias=lambda b, w, new, m, s: b - (new * wide(m)).mean(dim=(1, 2, 3))), "not their average"),
        "without the filters": (folded(bias=lambda b, w, new, m, s: b - (m / s).sum()), "without the filters"),
        "over the colours only": (
            folded(bias=lambda b, w, new, m, s: wide(b) - (new * wide(m)).sum(dim=1)),
            "colours only",
        ),
        "mean along the width": (
            folded(bias=lambda b, w, new, m, s: b - (new * m).sum(dim=(1, 2, 3))),
            "mean was laid along",
        ),
        "std twice": (folded(bias=lambda b, w, new, m, s: b - (new * wide(m / s)).sum(dim=(1, 2, 3))), "twice"),
        "in place": (in_place, "changes the .* that it was given"),
        "weight alone": (lambda w, b, m, s: w / wide(s), "expected two things"),
        "no return": (lambda *_: None, "returned None"),
    },
)


# ---- what the text says of the recorded runs


def ahead(start, of):
    """{share: in how many points, within each seed, one start is above another}, from the chapter's table."""
    rows = recorded("images_organphantom3d.json")["rows"]
    runs = {row["row"]: torch.tensor(row["test"]["acc"]["runs"]) for row in rows}
    return {n: 100 * (runs[f"{n} %, {start}"] - runs[f"{n} %, {of}"]) for n in (5, 10, 25, 50, 100)}


def test_without_labels_is_as_far_ahead_or_behind_as_the_text_says():
    gaps = ahead("central frame, without labels", "nothing pretrained")
    for few in (5, 10):
        assert 6.5 < gaps[few].mean() < 8
    for many in (50, 100):
        assert -5.5 < gaps[many].mean() < -4.5
    decided = [n for n, gap in gaps.items() if gap.mean().abs() > 2 * gap.std()]
    assert decided == [100]


# ---- the image transformer, published weights and drawings


def test_a_tiny_vivit_in_the_published_layout_is_what_transformers_reads(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = pretraining.write_tiny_vivit(tmp_path)
    theirs = transformers.VivitForVideoClassification.from_pretrained(tmp_path).eval()
    clips = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(clips.transpose(1, 2)).logits, model(clips), rtol=1e-4, atol=1e-4)
    predictor = pretraining.read_predictor(tmp_path / "model.safetensors", device="cpu")
    assert predictor.class_names == pretraining.ACTIONS and predictor.clip_shape == (3, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(predictor.model(clips), model(clips), rtol=1e-4, atol=1e-4)


def test_without_the_real_weights_the_chapter_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIVIT_EDU_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    predictor = pretraining.read_predictor(pretraining.published_vivit(), device="cpu")
    assert "random weights" in capsys.readouterr().out
    clip = pretraining.a_clip(predictor)
    found = pretraining.top(predictor, clip)
    assert clip.shape == (1, *predictor.clip_shape) and len(found) == 5
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
    assert len(pretraining.seen_in(predictor, clip).alt_text) > 80
    weights = pretraining.image_weights()
    assert "random weights" in capsys.readouterr().out and weights["conv_proj.weight"].shape == (32, 3, 16, 16)
    pretraining.write_tiny_vivit(tmp_path / "vivit-b")  # as if it had been downloaded
    assert pretraining.published_vivit() == tmp_path / "vivit-b" / "model.safetensors"
    assert not capsys.readouterr().out


def test_a_clip_of_the_readers_is_read_from_a_file(tmp_path):
    pretraining.write_tiny_vivit(tmp_path)
    predictor = pretraining.read_predictor(tmp_path / "model.safetensors", device="cpu")
    numpy.save(tmp_path / "mine.npy", numpy.full((12, 40, 40), 200, numpy.uint8))
    clip = pretraining.a_clip(predictor, tmp_path / "mine.npy")
    assert clip.shape == (1, 3, 8, 32, 32) and torch.allclose(clip.float(), clip.float().mean(), atol=1e-3)


def test_the_report_says_what_normalisation_the_weights_expect(tmp_path):
    model = pretraining.write_tiny_vivit(tmp_path)
    report = load_pretrained(copy.deepcopy(model), tmp_path / "model.safetensors")
    assert "mean 0.75, 0.75, 0.75 and std 0.25, 0.25, 0.25" in str(report)
    (tmp_path / "preprocessor_config.json").unlink()
    assert "normalise" not in str(load_pretrained(copy.deepcopy(model), tmp_path / "model.safetensors"))
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert torchvision_normalisation("ViT_B_16_Weights.IMAGENET1K_V1") == {"normalised": imagenet}


def test_the_recorded_image_transformer_knows_organs():
    """The mean token of slices of training patients, averaged per organ, is nearest to that of validation patients."""
    volumes, image_model = load_volumes("organphantom3d"), pretraining.image_transformer()
    fresh = build_model("spacetime", clip_shape=(1, 1, 28, 28), tokenizer="frames", tubelet=(1, 7, 7), **SIZES)

    @torch.no_grad()
    def accuracy(model):
        def features(split):
            return pooled(model, split.clips[:, :, 14:15] / 255)

        train = features(volumes.train)
        centres = torch.stack([train[volumes.train.labels == k].mean(dim=0) for k in range(11)])
        nearest = torch.cdist(features(volumes.val), centres).argmin(dim=1)
        return (nearest == volumes.val.labels).float().mean()

    assert accuracy(image_model) > 0.6 > accuracy(fresh) + 0.15


def recorded_rows(starts, shares):
    one = {"mean": 0.5, "sd": 0.02, "runs": [0.48, 0.52]}
    return [
        {
            "row": f"{share} %, {start}",
            "test": {"acc": one},
            "loss": one,
            "history": {"loss": [[2.0, 0.5], [1.9, 0.4]]},
        }
        for start in starts
        for share in shares
    ]


def test_drawings():
    from tests.course.test_pictures import assert_readable

    filters = torch.randn(5, 1, 7, 7)
    ways = {"average": average_by_einops(filters, 7), "central frame": into_zeros(filters, 7)}
    positions = torch.randn(1, 16, 8)
    grids = {"4×4": (positions, (4, 4)), "7×7": (resized_by_einops(positions, (4, 4), (7, 7)), (7, 7))}
    for figure in (
        drawings.taken_and_changed(),
        drawings.filters_in_a_tubelet(filters, ways),
        drawings.likeness_of_places(grids),
        drawings.accuracy_by_share({"rows": recorded_rows(drawings.START_INKS, (5, 25, 100))}),
        drawings.losses_by_start({"rows": recorded_rows(drawings.START_INKS, (5, 100))}),
    ):
        assert_readable(figure)
