"""Chapter 08: what its checks accept and refuse, and the attention that its cells build."""

import torch
from einops import rearrange, repeat

from vivit_edu.attention import FactorisedDotProductAttention
from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.course.checks import ch08

from .cases import run_cases

# ---- 08.1


def by_einops(qkv, heads):
    return rearrange(qkv, "b t s (three half h d) -> half three b t s h d", three=3, half=2, h=heads // 2)


def by_slices(qkv, heads):
    of_heads = torch.stack([part.unflatten(-1, (heads, -1)) for part in qkv.chunk(3, dim=-1)])
    return of_heads[..., : heads // 2, :], of_heads[..., heads // 2 :, :]


def by_view(qkv, heads):
    b, t, s, _ = qkv.shape
    space, time = qkv.view(b, t, s, 3, 2, heads // 2, -1).movedim(3, 0).unbind(4)
    return [space, time]


def pattern(words, **sizes):
    def split_heads(qkv, heads):
        named = {name: size(heads) for name, size in sizes.items()}
        return tuple(rearrange(qkv, f"b t s ({words}) -> half three b t s h d", half=2, three=3, **named))

    return split_heads


half_heads = {"h": lambda heads: heads // 2}

test_split_heads = run_cases(
    ch08.check_split_heads,
    right=[by_einops, by_slices, by_view],
    wrong={
        "the notebook's heads": (pattern("three half h d", h=lambda heads: 4), "your code raised EinopsError"),
        "detached": (lambda qkv, heads: by_slices(qkv.detach(), heads), "no gradient reaches"),
        "time detached": (
            lambda qkv, heads: (by_slices(qkv, heads)[0], by_slices(qkv, heads)[1].detach()),
            "gradient of qkv is not",
        ),
        "axes of length 1 lost": (
            lambda qkv, heads: [x.squeeze() for x in by_slices(qkv, heads)],
            "With other sizes it was right",
        ),
        "three last": (
            lambda qkv, heads: [x.movedim(0, -1) for x in by_slices(qkv, heads)],
            "right axes in another order",
        ),
        "exchanged": (lambda qkv, heads: by_slices(qkv, heads)[::-1], "space and time are exchanged"),
        "every second head": (pattern("three h half d", **half_heads), "every second head"),
        "heads cut in two": (pattern("three h half d", h=lambda heads: heads), "cut in two"),
        "halved too early": (pattern("half three h d", **half_heads), "halved before"),
        "heads before three": (pattern("half h three d", **half_heads), "told apart before"),
        "d before h": (pattern("three half d h", **half_heads), r"\(… d h\)"),
        "heads not halved": (
            lambda qkv, heads: by_einops(qkv, 2 * heads),
            "right number of values, divided differently",
        ),
        "grid flattened": (
            lambda qkv, heads: [part.flatten(2, 3) for part in by_slices(qkv, heads)],
            "5 axes instead of 6",
        ),
        "three parts": (lambda qkv, heads: qkv.chunk(3, dim=-1), "returned 3 parts"),
        "no return": (lambda qkv, heads: None, "returned None"),
        "a typing error": (
            lambda qkv, heads: rearrange(qkv, "b t (three half h d) -> half three b t h d"),
            "your code raised",
        ),
    },
)

# ---- 08.2


def merged(space="(b t) h s d", time="(b s) h t d", to="b t s (h d)", dim=-1, order=1):
    def merge_halves(y_space, y_time, batch):
        halves = rearrange(y_space, f"{space} -> {to}", b=batch), rearrange(y_time, f"{time} -> {to}", b=batch)
        return torch.cat(halves[::order], dim=dim)

    return merge_halves


def by_permute(y_space, y_time, batch):
    space = y_space.unflatten(0, (batch, -1)).permute(0, 1, 3, 2, 4).flatten(3)
    time = y_time.unflatten(0, (batch, -1)).permute(0, 3, 1, 2, 4).flatten(3)
    return torch.cat((space, time), dim=3)


def heads_joined_first(y_space, y_time, batch):
    space = rearrange(y_space, "(b t) h s d -> b t s h d", b=batch)
    time = rearrange(y_time, "(b s) h t d -> b t s h d", b=batch)
    return torch.cat((space, time), dim=3).flatten(3)


def space_viewed(y_space, y_time, batch):
    time = rearrange(y_time, "(b s) h t d -> b t s (h d)", b=batch)
    return torch.cat((y_space.reshape(time.shape), time), dim=-1)


def time_viewed(y_space, y_time, batch):
    space = rearrange(y_space, "(b t) h s d -> b t s (h d)", b=batch)
    return torch.cat((space, y_time.reshape(space.shape)), dim=-1)


def both_viewed(y_space, y_time, batch):
    shape = (batch, len(y_space) // batch, len(y_time) // batch, -1)
    return torch.cat((y_space.reshape(shape), y_time.reshape(shape)), dim=-1)


def added(y_space, y_time, batch):
    return sum(by_permute(y_space, y_time, batch).chunk(2, dim=-1))


def alternating(y_space, y_time, batch):
    halves = by_permute(y_space, y_time, batch).unflatten(-1, (2, y_space.shape[1], -1))
    return rearrange(halves, "b t s half h d -> b t s (h half d)")


def space_twice(y_space, y_time, batch):
    return torch.cat([by_permute(y_space, y_time, batch).chunk(2, dim=-1)[0]] * 2, dim=-1)


test_merge_halves = run_cases(
    ch08.check_merge_halves,
    right=[merged(), by_permute, heads_joined_first],
    wrong={
        "always three clips": (lambda s, t, batch: by_permute(s, t, 3), "your code raised"),
        "detached": (lambda s, t, batch: by_permute(s.data, t, batch), "no gradient reaches s"),
        "averaged": (lambda *y: added(*y) / 2, r"expected \[3, 5, 6, 112\]"),
        "time first": (merged(order=-1), "time comes first"),
        "added": (added, "added"),
        "space viewed": (space_viewed, "spatial half was reshaped"),
        "time viewed": (time_viewed, "temporal half was reshaped"),
        "both viewed": (both_viewed, "both halves were reshaped"),
        "heads alternate": (alternating, "heads of the two halves alternate"),
        "d before h": (merged(to="b t s (d h)"), "numbers of the heads alternate"),
        "time unfolded as (s b)": (merged(time="(s b) h t d"), "temporal half got mixed up"),
        "space unfolded as (t b)": (merged(space="(t b) h s d"), "spatial half got mixed up"),
        "along the places": (merged(dim=2), "along the places"),
        "along time": (merged(dim=1), "along time"),
        "space twice": (space_twice, "used twice"),
        "flattened": (lambda *y: by_permute(*y).flatten(1, 2), "3 axes instead of 4"),
        "not merged": (lambda s, t, batch: torch.cat((s, t), dim=-1), "your code raised"),
        "no return": (lambda *y: None, "None"),
    },
)

# ---- 08.3


def masks_of(n_t, n_s):
    token = torch.arange(n_t * n_s)
    time, place = token // n_s, token % n_s
    return time[:, None] == time, place[:, None] == place


def stacked(n_t, n_s, heads, space_heads):
    space, time = masks_of(n_t, n_s)
    return torch.stack([space] * space_heads + [time] * (heads - space_heads))


def by_kron(n_t, n_s, heads, space_heads):
    space = torch.kron(torch.eye(n_t), torch.ones(n_s, n_s)) > 0
    time = torch.kron(torch.ones(n_t, n_t), torch.eye(n_s)) > 0
    return torch.cat(
        (repeat(space, "q k -> h q k", h=space_heads), repeat(time, "q k -> h q k", h=heads - space_heads))
    )


def by_loop(n_t, n_s, heads, space_heads):
    mask = torch.zeros(heads, n_t * n_s, n_t * n_s, dtype=torch.bool)
    for head in range(heads):
        for query in range(n_t * n_s):
            for key in range(n_t * n_s):
                alike = query // n_s == key // n_s if head < space_heads else query % n_s == key % n_s
                mask[head, query, key] = alike
    return mask


def counted_by_place(n_t, n_s, heads, space_heads):
    token = torch.arange(n_t * n_s)
    time, place = token % n_t, token // n_t
    return torch.stack([time[:, None] == time] * space_heads + [place[:, None] == place] * (heads - space_heads))


def one_for_all(n_t, n_s, heads, space_heads):
    space, time = masks_of(n_t, n_s)
    return (space | time).expand(heads, -1, -1)


def themselves(n_t, n_s, heads, space_heads):
    space, time = masks_of(n_t, n_s)
    return (space & time).expand(heads, -1, -1)


def alternate(n_t, n_s, heads, space_heads):
    return torch.stack([masks_of(n_t, n_s)[head % 2] for head in range(heads)])


test_head_masks = run_cases(
    ch08.check_head_masks,
    right=[stacked, by_kron, by_loop],
    wrong={
        "at least one for space": (lambda t, s, heads, space: stacked(t, s, heads, max(space, 1)), "is wrong in 18"),
        "an axis for the batch": (lambda *sizes: stacked(*sizes)[None], "4 axes instead of 3"),
        "a list": (lambda *sizes: list(stacked(*sizes)), "is a list"),
        "not itself": (lambda t, s, *heads: stacked(t, s, *heads) & ~torch.eye(t * s).bool(), "is wrong in 48"),
        "the notebook's grid": (lambda t, s, *heads: stacked(4, 16, *heads), "has shape"),
        "inverted": (lambda *sizes: ~stacked(*sizes), "True and False are exchanged"),
        "exchanged": (
            lambda *sizes: torch.stack([masks_of(*sizes[:2])[head < sizes[3]] for head in range(sizes[2])]),
            "space and time are exchanged",
        ),
        "temporal heads first": (lambda *sizes: stacked(*sizes).flip(0), "exchanged|temporal heads come first"),
        "counted by place": (counted_by_place, "counted place by place"),
        "one for all": (one_for_all, "same mask, space and time at once"),
        "themselves": (themselves, "sees itself alone"),
        "always half": (lambda t, s, heads, _: stacked(t, s, heads, heads // 2), "whatever space_heads says"),
        "alternate": (alternate, "alternate"),
        "no head axis": (lambda *sizes: stacked(*sizes)[0], "2 axes instead of 3"),
        "numbers": (lambda *sizes: stacked(*sizes).float(), "expected bool"),
        "causal": (lambda *sizes: stacked(*sizes).tril(), "tril"),
        "a grid": (lambda t, s, heads, _: torch.ones(heads, t, s).bool(), "has shape"),
        "no return": (lambda *sizes: None, "None"),
    },
)

# ---- the attention that the chapter builds


@torch.no_grad()
def test_the_chapters_attention_is_the_packages():
    chapter = load_definitions(checkout() / "notebooks" / "08_model4_factorised_dot_product.ipynb")
    theirs, tokens = FactorisedDotProductAttention(24, 4), torch.randn(2, 3, 5, 24)
    ours = chapter.AttentionFour(24, 4)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    torch.testing.assert_close(chapter.by_loops(theirs, tokens), theirs(tokens))
