"""Chapter 07: what its checks accept and refuse, and the model that its cells build."""

import torch
from einops import rearrange
from torch import nn

from vivit_edu import build_model
from vivit_edu.attention import over_space, over_time
from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.course.checks import ch07

from .cases import run_cases

# ---- 07.1


def by_einops(attention, tokens):
    folded = rearrange(tokens, "b t s d -> (b s) t d")
    return rearrange(attention(folded), "(b s) t d -> b t s d", b=len(tokens))


def by_transpose(attention, tokens):
    b, t, s, d = tokens.shape
    return attention(tokens.transpose(1, 2).reshape(b * s, t, d)).view(b, s, t, d).transpose(1, 2)


def by_loop(attention, tokens):
    return torch.stack([attention(place) for place in tokens.unbind(2)], dim=2)


def space_before_batch(attention, tokens):
    folded = rearrange(tokens, "b t s d -> (s b) t d")
    return rearrange(attention(folded), "(s b) t d -> b t s d", b=len(tokens))


def through(fold, unfold):
    def over_time(attention, tokens):
        b, t, s, _ = tokens.shape
        sizes = {name: size for name, size in dict(b=b, t=t, s=s).items() if name in unfold.split("->")[0].split()}
        sizes |= {"b": b} if "(" in unfold and "b" in unfold else {}
        return rearrange(attention(rearrange(tokens, fold)), unfold, **sizes)

    return over_time


def by_view(attention, tokens):
    b, t, s, d = tokens.shape
    return attention(tokens.view(b * s, t, d)).view(b, t, s, d)


def unfolded_by_view(attention, tokens):
    b, t, s, d = tokens.shape
    return attention(tokens.transpose(1, 2).reshape(b * s, t, d)).view(b, t, s, d)


def not_unfolded(attention, tokens):
    return attention(rearrange(tokens, "b t s d -> (b s) t d"))


def left_transposed(attention, tokens):
    return rearrange(by_einops(attention, tokens), "b t s d -> b s t d")


def all_tokens(attention, tokens):
    return attention(tokens.flatten(1, 2)).unflatten(1, tokens.shape[1:3])


test_over_time = run_cases(
    ch07.check_over_time,
    right=[by_einops, by_transpose, by_loop, space_before_batch],
    wrong={
        "always three clips": (
            lambda a, x: rearrange(a(rearrange(x, "b t s d -> (b s) t d")), "(b s) t d -> b t s d", b=3),
            "your code raised",
        ),
        "without gradients": (torch.no_grad()(by_einops), "no gradient reaches"),
        "detached": (lambda a, x: by_einops(a, x.detach()), "no gradient reaches x"),
        "left in train mode": (lambda a, x: by_einops(a.train(), x), "left in another mode"),
        "frozen": (lambda a, x: by_einops(a.requires_grad_(False), x), "requires_grad of its parameters"),
        "one place for all": (lambda a, x: torch.stack([a(x[:, :, 0])] * x.shape[2], 2), "is wrong"),
        "axes of length 1 lost": (lambda a, x: by_einops(a, x).squeeze(), "With other sizes it was right"),
        "over space": (over_space, "attention over space"),
        "view instead of a transpose": (by_view, "without being moved"),
        "unfolded by view": (unfolded_by_view, "unfolded by view"),
        "unfolded in another order": (through("b t s d -> (b s) t d", "(s b) t d -> b t s d"), "mixed up"),
        "over the batch": (
            lambda a, x: a(x.flatten(1, 2).transpose(0, 1)).transpose(0, 1).view_as(x),
            "one clip saw another",
        ),
        "clips joined": (through("b t s d -> s (b t) d", "s (b t) d -> b t s d"), "B·T' tokens"),
        "places and clips joined": (through("b t s d -> t (b s) d", "t (b s) d -> b t s d"), "second axis"),
        "all tokens at once": (all_tokens, "Model 1"),
        "not unfolded": (not_unfolded, r"\[15, 4, 8\], expected \[3, 4, 5, 8\]"),
        "left transposed": (left_transposed, "right axes in another order"),
        "four axes into the attention": (lambda a, x: a(x), "your code raised"),
        "attention forgotten": (lambda a, x: x, "nothing attended"),
        "residual inside": (lambda a, x: x + over_time(a, x), "residual connection is the block's"),
        "no return": (lambda a, x: None, "None"),
        "not written": (lambda a, x: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 07.2


def step_by_step(block, z):
    z = z + over_time(block.time_attention, block.norm_time(z))
    z = z + over_space(block.space_attention, block.norm_space(z))
    return z + block.mlp(block.norm_mlp(z))


def in_one_loop(block, z):
    def over_space(y):
        return torch.stack([block.space_attention(frame) for frame in block.norm_space(y).unbind(1)], dim=1)

    branches = (
        lambda y: by_loop(block.time_attention, block.norm_time(y)),
        over_space,
        lambda y: block.mlp(block.norm_mlp(y)),
    )
    for branch in branches:
        z = torch.add(z, branch(z))
    return z


def on_a_copy(block, z):
    return in_place(block, z.clone())


def in_place(block, z):
    z += by_loop(block.time_attention, block.norm_time(z))
    z += torch.stack([block.space_attention(frame) for frame in block.norm_space(z).unbind(1)], dim=1)
    z += block.mlp(block.norm_mlp(z))
    return z


def time_only(block, z):
    return over_time(block.time_attention, block.norm_time(z))


def space_only(block, z):
    return over_space(block.space_attention, block.norm_space(z))


def no_time_residual(block, z):
    y = time_only(block, z)
    y = y + space_only(block, y)
    return y + block.mlp(block.norm_mlp(y))


def no_space_residual(block, z):
    y = space_only(block, z + time_only(block, z))
    return y + block.mlp(block.norm_mlp(y))


def no_mlp_residual(block, z):
    y = z + time_only(block, z)
    y = y + space_only(block, y)
    return block.mlp(block.norm_mlp(y))


def no_residuals(block, z):
    return block.mlp(block.norm_mlp(space_only(block, time_only(block, z))))


def no_mlp(block, z):
    y = z + time_only(block, z)
    return y + space_only(block, y)


def parallel(block, z):
    y = z + time_only(block, z) + space_only(block, z)
    return y + block.mlp(block.norm_mlp(y))


def residual_of_the_input(block, z):
    y = z + space_only(block, z + time_only(block, z))
    return y + block.mlp(block.norm_mlp(y))


def mlp_residual_of_the_input(block, z):
    y = z + time_only(block, z)
    return z + block.mlp(block.norm_mlp(y + space_only(block, y)))


def normalised_residual(block, z):
    z = block.norm_time(z)
    z = z + over_time(block.time_attention, z)
    z = block.norm_space(z)
    z = z + over_space(block.space_attention, z)
    z = block.norm_mlp(z)
    return z + block.mlp(z)


def no_norms(block, z):
    z = z + over_time(block.time_attention, z)
    z = z + over_space(block.space_attention, z)
    return z + block.mlp(z)


def no_norm_before_time(block, z):
    z = z + over_time(block.time_attention, z)
    z = z + space_only(block, z)
    return z + block.mlp(block.norm_mlp(z))


def no_norm_before_space(block, z):
    z = z + time_only(block, z)
    z = z + over_space(block.space_attention, z)
    return z + block.mlp(block.norm_mlp(z))


def no_norm_before_mlp(block, z):
    z = z + time_only(block, z)
    return (z := z + space_only(block, z)) + block.mlp(z)


def norms_exchanged(block, z):
    z = z + over_time(block.time_attention, block.norm_space(z))
    z = z + over_space(block.space_attention, block.norm_time(z))
    return z + block.mlp(block.norm_mlp(z))


def axes_kept(block, z):
    z = z + over_space(block.time_attention, block.norm_time(z))
    z = z + over_time(block.space_attention, block.norm_space(z))
    return z + block.mlp(block.norm_mlp(z))


def attentions_exchanged(block, z):
    z = z + over_time(block.space_attention, block.norm_time(z))
    z = z + over_space(block.time_attention, block.norm_space(z))
    return z + block.mlp(block.norm_mlp(z))


def weights_exchanged(block, z):
    block.norm_space, block.norm_time = block.norm_time, block.norm_space
    block.space_attention, block.time_attention = block.time_attention, block.space_attention
    return block(z.transpose(1, 2)).transpose(1, 2)


def branch_by_branch(block, z):
    time = by_transpose(block.time_attention, block.norm_time(z))
    y = time + z
    space = block.space_attention(block.norm_space(y).flatten(0, 1)).view_as(y)
    y = space + y
    return y + block.mlp(block.norm_mlp(y))


def branch_without_gradients(block, z):
    with torch.no_grad():
        time = by_einops(block.time_attention, block.norm_time(z))
    y = z + time
    y = y + over_space(block.space_attention, block.norm_space(y))
    return y + block.mlp(block.norm_mlp(y))


def mlp_in_place(block, z):
    y = z + by_einops(block.time_attention, block.norm_time(z))
    y = y + over_space(block.space_attention, block.norm_space(y))
    y += block.mlp(block.norm_mlp(y))
    return y


def three_clips(block, z):
    y = z + by_einops(block.time_attention, block.norm_time(z))
    folded = rearrange(block.norm_space(y), "b t s d -> (b t) s d")
    y = y + rearrange(block.space_attention(folded), "(b t) s d -> b t s d", b=3)
    return y + block.mlp(block.norm_mlp(y))


test_time_first = run_cases(
    ch07.check_time_first,
    right=[branch_by_branch, step_by_step, in_one_loop],
    wrong={
        "one branch without gradients": (branch_without_gradients, "no gradient reaches block.norm_time.weight"),
        "a sum in place": (mlp_in_place, "training would stop with an error"),
        "always three clips": (three_clips, "your code raised RuntimeError"),
        "left in train mode": (lambda block, z: step_by_step(block.train(), z), "left in another mode"),
        "space first": (lambda block, z: block(z), "paper's order"),
        "no residual around time": (no_time_residual, "around the attention over time is missing"),
        "no residual around space": (no_space_residual, "around the attention over space is missing"),
        "no residual around the MLP": (no_mlp_residual, "around the MLP is missing"),
        "no residuals": (no_residuals, "no residual connection anywhere"),
        "no MLP": (no_mlp, "MLP is missing"),
        "parallel": (parallel, "in parallel"),
        "residual of the input": (residual_of_the_input, "block's input z"),
        "MLP's residual of the input": (mlp_residual_of_the_input, "residual of the MLP is the block's input"),
        "normalised residual": (normalised_residual, "goes through LayerNorm"),
        "no LayerNorms": (no_norms, "all three branches"),
        "no LayerNorm before time": (no_norm_before_time, "missing before the attention over time"),
        "no LayerNorm before space": (no_norm_before_space, "missing before the attention over space"),
        "no LayerNorm before the MLP": (no_norm_before_mlp, "missing before the MLP"),
        "LayerNorms exchanged": (norms_exchanged, "LayerNorms are exchanged"),
        "axes kept": (axes_kept, "but not their axes"),
        "attentions exchanged": (attentions_exchanged, "attentions are exchanged"),
        "in place on a copy": (on_a_copy, "training would stop with an error"),
        "in place": (in_place, "changes the z that it was given"),
        "without gradients": (torch.no_grad()(step_by_step), "no gradient reaches the arguments"),
        "the block's modules exchanged": (weights_exchanged, "its weights are other ones"),
        "transposed": (lambda block, z: step_by_step(block, z).transpose(1, 2), "another order"),
    },
)

# ---- 07.3


def output_projection(block):
    nn.init.zeros_(block.time_attention.out.weight)
    nn.init.zeros_(block.time_attention.out.bias)


def with_no_grad(block):
    with torch.no_grad():
        for parameter in block.time_attention.out.parameters():
            parameter.zero_()
    return block


def new_projection(block):
    out = nn.Linear(*block.time_attention.out.weight.shape[::-1])
    out.weight.data *= 0
    out.bias.data *= 0
    block.time_attention.out = out


def values_alone(block):  # unusual, and right: W_O is not zero, so W_V gets a gradient at once
    dim = block.time_attention.out.in_features
    with torch.no_grad():
        block.time_attention.qkv.weight[2 * dim :] = 0
        block.time_attention.qkv.bias[2 * dim :] = 0
        block.time_attention.out.bias.zero_()


def zeros(*names, then=lambda block: None):
    def start(block):
        for name in names:
            for parameter in block.get_submodule(name).parameters():
                nn.init.zeros_(parameter)
        then(block)

    return start


def replaced(block):
    block.time_attention = nn.Identity()


def weight_alone(block):
    nn.init.zeros_(block.time_attention.out.weight)


def bias_alone(block):
    nn.init.zeros_(block.time_attention.out.bias)


def queries_keys_values(block):
    zeros("time_attention.qkv")(block)
    nn.init.zeros_(block.time_attention.out.bias)


def by_data(block):
    block.time_attention.out.weight.data.fill_(0)
    block.time_attention.out.bias.data.fill_(0)


@torch.no_grad()
def small_weights(block):
    block.time_attention.out.weight.mul_(1e-3)
    block.time_attention.out.bias.zero_()


def gradients_left_off(block):
    torch.set_grad_enabled(False)
    output_projection(block)


def width_written_in(block):
    block.time_attention.out.weight.data = torch.zeros(8, 8)
    block.time_attention.out.bias.data = torch.zeros(8)


test_starts_as_identity = run_cases(
    ch07.check_starts_as_identity,
    right=[by_data, output_projection, with_no_grad, new_projection, values_alone],
    wrong={
        "small": (small_weights, "still adds something"),
        "gradients left off": (gradients_left_off, "gradients switched off"),
        "the notebook's width": (width_written_in, "a size is written into the code"),
        "left in train mode": (lambda block: output_projection(block.train()), "left in train mode"),
        "the identity matrix": (
            lambda block: (nn.init.eye_(block.time_attention.out.weight), bias_alone(block)) and None,
            "still adds",
        ),
        "all of it": (zeros("time_attention"), "this is the trap"),
        "the bias left": (weight_alone, "its bias is not"),
        "the bias alone": (bias_alone, "still adds something"),
        "nothing": (lambda block: None, "still adds something"),
        "QKV": (zeros("time_attention.qkv"), "same vector to every token"),
        "QKV and the bias": (queries_keys_values, "W_Q, W_K got no gradient"),
        "the attention over space": (zeros("space_attention.out"), "space_attention changed"),
        "its LayerNorm": (zeros("norm_time", then=bias_alone), "norm_time changed"),
        "frozen": (zeros("time_attention.out", then=lambda b: b.time_attention.requires_grad_(False)), "frozen"),
        "taken out": (replaced, "no MultiHeadAttention any more"),
    },
)

# ---- the model that the chapter builds


@torch.no_grad()
def test_the_chapters_model_is_the_packages():
    chapter = load_definitions(checkout() / "notebooks" / "07_model3_factorised_self_attention.ipynb")
    options = dict(clip_shape=(2, 6, 6, 12), num_classes=5, tubelet=(2, 3, 3), dim=24, depth=2, heads=4, mlp_dim=48)
    theirs = build_model("factorised_self_attention", **options).eval()
    ours = chapter.ModelThree(theirs.config).eval()
    ours.load_state_dict({name.removeprefix("encoder."): weight for name, weight in theirs.state_dict().items()})
    clips = torch.rand(3, 2, 6, 6, 12)
    torch.testing.assert_close(ours(clips), theirs(clips))
