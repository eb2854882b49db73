"""The checks of chapter 00 accept right solutions, however written, and name the mistake in wrong ones; its drawings
say what they show, and its table of letters is that of the model in the chapter."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import nn

from tests.course.test_widgets import displayed  # noqa: F401  (a fixture)
from tests.exercises.cases import run_cases
from vivit_edu.course import attention_widget
from vivit_edu.course.checks import ch00
from vivit_edu.course.ready.ch00 import TinyModel
from vivit_edu.course.recorded import recorded_model
from vivit_edu.support.places import checkout
from vivit_edu.volumes import Split

# ---- 00.1 film strip


def by_einops(clip):
    return rearrange(clip, "c t h w -> (c h) (t w)")


def by_cat(clip):
    return torch.cat(list(clip[0]), dim=1)


def by_permute(clip):
    return clip[0].permute(1, 0, 2).flatten(1)


test_film_strip = run_cases(
    ch00.check_film_strip,
    right=[by_einops, by_cat, by_permute],
    wrong={
        "an axis of length 1 lost": (lambda c: rearrange(c.squeeze(), "t h w -> h (t w)"), "raised EinopsError"),
        "the notebook's height": (lambda c: c[0].permute(1, 0, 2).reshape(28, -1), "your code raised RuntimeError"),
        "numpy": (lambda c: np.concatenate(list(c[0].numpy()), axis=1), "is a ndarray, expected a tensor"),
        "the first frame": (lambda c: c[0, 0], "a single frame: the strip has all T"),
        "a list of frames": (lambda c: list(c[0]), "is a list, expected a tensor"),
        "bytes": (lambda c: by_einops(c).to(torch.uint8), "(is|are) wrong in"),
        "decimals": (lambda c: by_einops(c).float(), "is float32, expected uint8"),
        "the last frame first": (lambda c: by_einops(c.flip(1)), "run backwards"),
        "transposed, then view": (
            lambda c: c[0].transpose(0, 1).contiguous().view(c.shape[1], -1),
            "divided differently",
        ),
        "time inside width": (lambda c: rearrange(c, "1 t h w -> h (w t)"), "time were inside width"),
        "reshape": (lambda c: c.reshape(c.shape[2], -1), "never moves"),
        "below": (lambda c: c[0].flatten(0, 1), "below each other"),
        "on its side": (lambda c: rearrange(c, "1 t h w -> (t w) h"), "on its side"),
        "channel kept": (lambda c: rearrange(c, "c t h w -> c h (t w)"), "channel is still there"),
        "frames turned": (lambda c: rearrange(c, "1 t h w -> w (t h)"), "every frame"),
        "pattern does not fit": (lambda c: rearrange(c, "t h w -> h (t w)"), "raised EinopsError"),
        "no return": (lambda c: None, "None"),
    },
)

# ---- 00.2 means of blocks

TO_BLOCKS = "b 1 (nt pt) (nh ph) (nw pw) -> b (nt nh nw)"


def by_reduce(clips, size):
    return reduce(clips, TO_BLOCKS, "mean", pt=size, ph=size, pw=size)


def by_pooling(clips, size):
    return F.avg_pool3d(clips, size).flatten(1)


def by_reshape(clips, size):
    b, _, t, h, w = clips.shape
    return clips.reshape(b, t // size, size, h // size, size, w // size, size).mean(dim=(2, 4, 6)).flatten(1)


def by_unfold(clips, size):
    blocks = clips[:, 0].unfold(1, size, size).unfold(2, size, size).unfold(3, size, size)
    return blocks.mean(dim=(-3, -2, -1)).reshape(len(clips), -1)


def by_loops(clips, size):
    _, _, T, H, W = clips.shape
    means = []
    for t in range(0, T, size):
        for h in range(0, H, size):
            for w in range(0, W, size):
                means.append(clips[:, :, t : t + size, h : h + size, w : w + size].mean(dim=(1, 2, 3, 4)))
    return torch.stack(means, dim=1)


def by_rearrange(clips, size):
    blocks = rearrange(clips, "b 1 (nt pt) (nh ph) (nw pw) -> b (nt nh nw) (pt ph pw)", pt=size, ph=size, pw=size)
    return blocks.mean(-1)


def of_each_frame(clips, size):
    return F.avg_pool2d(clips[:, 0], size).flatten(1)


def written_into(clips, size):
    clips /= 255
    return by_reduce(clips, size)


def cut_off(clips, size):
    return torch.tensor(by_reduce(clips, size).tolist())


test_block_means = run_cases(
    ch00.check_block_means,
    right=[by_reduce, by_pooling, by_reshape, by_unfold, by_loops, by_rearrange],
    wrong={
        "reshape": (lambda c, p: c.reshape(len(c), -1, p**3).mean(-1), "order of memory"),
        "view of the blocks": (lambda c, p: c.view(c.shape[0], c[0].numel() // p**3, -1).mean(2), "order of memory"),
        "sums": (lambda c, p: reduce(c, TO_BLOCKS, "sum", pt=p, ph=p, pw=p), "these are sums"),
        "max": (lambda c, p: reduce(c, TO_BLOCKS, "max", pt=p, ph=p, pw=p), "largest voxel"),
        "max pooling": (lambda c, p: F.max_pool3d(c, p).flatten(1), "largest voxel"),
        "still a grid": (lambda c, p: F.avg_pool3d(c, p)[:, 0], "still in their grid"),
        "pooled, not flattened": (lambda c, p: F.avg_pool3d(c, p), r"expected \[2, 24\]: 5 axes"),
        "flattened altogether": (lambda c, p: F.avg_pool3d(c, p).flatten(), "keep the axis b"),
        "columns first": (
            lambda c, p: reduce(c, "b 1 (nt pt) (nh ph) (nw pw) -> b (nw nh nt)", "mean", pt=p, ph=p, pw=p),
            "another order",
        ),
        "p on the right": (
            lambda c, p: reduce(c, "b 1 (nt pt) (nh ph) (nw pw) -> b (pt ph pw)", "mean", pt=p, ph=p, pw=p),
            "changed places",
        ),
        "size is the number of blocks": (
            lambda c, p: reduce(c, TO_BLOCKS, "mean", nt=p, nh=p, nw=p),
            r"shape \[2, 8\], expected \[2, 24\]",
        ),
        "pt before nt": (
            lambda c, p: reduce(c, "b 1 (pt nt) (ph nh) (pw nw) -> b (nt nh nw)", "mean", pt=p, ph=p, pw=p),
            "last letter runs fastest",
        ),
        "every frame on its own": (of_each_frame, "`size` frames deep"),
        "one number per clip": (lambda c, p: c.mean(dim=(1, 2, 3, 4)), "a single number per clip"),
        "a channel": (lambda c, p: F.avg_pool3d(c, p).flatten(2), "channel is still there"),
        "divided by 255": (lambda c, p: by_reduce(c / 255, p), "in \\[0, 1\\] already"),
        "divided in place": (written_into, "changes the clips"),
        "always 4": (lambda c, p: by_reduce(c, 4), "can't divide axis.*from `size`"),
        "always 2": (lambda c, p: by_reduce(c, 2), "can't divide axis.*from `size`"),
        "the notebook's count": (lambda c, p: by_reduce(c, p).reshape(-1, 343), "your code raised RuntimeError"),
        "detached": (cut_off, "no gradient reaches"),
        "float32": (lambda c, p: by_reduce(c.float(), p), "float64"),
        "a list": (lambda c, p: by_reduce(c, p).tolist(), "is a list, expected a tensor"),
        "no return": (lambda c, p: None, "does your function end in"),
    },
)

# ---- 00.3 the first model


class Model(TinyModel):
    """A start for others: the parts as the task asks for them."""


class InSteps(Model):
    def forward(self, means):
        x = means - means.mean(1)[:, None]
        x = self.hidden(x)
        x = F.relu(x)
        return self.head(x)


class InOneLine(nn.Module):
    def __init__(self, n, hidden, k):
        super().__init__()
        self.hidden = nn.Linear(in_features=n, out_features=hidden)
        self.head = nn.Linear(hidden, k)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x - x.mean(-1, keepdim=True))))


class InSequence(nn.Module):
    def __init__(self, numbers, width, classes):
        super().__init__()
        self.hidden, self.head = nn.Linear(numbers, width), nn.Linear(width, classes)
        self.all = nn.Sequential(self.hidden, nn.ReLU(), self.head)

    def forward(self, means):
        return self.all(means - reduce(means, "b n -> b 1", "mean"))


class ByClamp(Model):
    def forward(self, means):
        sums = means.sum(dim=1, keepdim=True)
        return self.head(self.hidden(means - sums / means.shape[1]).clamp(min=0))


def centred(means):
    return means - means.mean(dim=1, keepdim=True)


def forward(function):
    """The model with another `forward`."""
    return type("TinyModel", (Model,), {"forward": function})


def parts(**changes):
    """The model with other parts."""

    def init(self, numbers, width, classes):
        TinyModel.__init__(self, numbers, width, classes)
        for name, make in changes.items():
            delattr(self, name)
            if make is not None:
                setattr(self, name, make(numbers, width, classes))

    return type("TinyModel", (Model,), {"__init__": init})


class WithoutSuper(nn.Module):
    def __init__(self, numbers, width, classes):
        self.hidden = nn.Linear(numbers, width)


def as_function(means):
    return means - means.mean(dim=1, keepdim=True)


def in_place(model, means):
    means -= means.mean(dim=1, keepdim=True)
    return model.head(model.hidden(means).relu())


test_tiny_model = run_cases(
    ch00.check_tiny_model,
    right=[InSteps, InOneLine, InSequence, ByClamp],
    wrong={
        "not centred": (forward(lambda m, x: m.head(m.hidden(x).relu())), "not centred"),
        "over the batch": (forward(lambda m, x: m.head(m.hidden(x - x.mean(0)).relu())), "over the clips"),
        "one mean": (forward(lambda m, x: m.head(m.hidden(x - x.mean()).relu())), "whole batch"),
        "without keepdim": (forward(lambda m, x: m.head(m.hidden(x - x.mean(1)).relu())), "keepdim=True"),
        "divided": (forward(lambda m, x: m.head(m.hidden(x / x.mean(1, keepdim=True)).relu())), "divided by the mean"),
        "added": (forward(lambda m, x: m.head(m.hidden(x + x.mean(1, keepdim=True)).relu())), "the mean was added"),
        "centred later": (forward(lambda m, x: m.head(centred(m.hidden(x)).relu())), "what `hidden` returns was"),
        "LayerNorm": (
            forward(lambda m, x: m.head(m.hidden(F.layer_norm(x, x.shape[1:])).relu())),
            "tensor of logits (is|are) wrong",
        ),
        "centred in place": (forward(in_place), "changes the means that it was given"),
        "no ReLU": (forward(lambda m, x: m.head(m.hidden(centred(x)))), "ReLU is missing"),
        "ReLU at the end": (forward(lambda m, x: m.head(m.hidden(centred(x))).relu()), "comes too late"),
        "two ReLUs": (forward(lambda m, x: TinyModel.forward(m, x).relu()), "follows `head` too"),
        "ReLU first": (forward(lambda m, x: m.head(m.hidden(centred(x).relu()))), "before `hidden`"),
        "GELU": (forward(lambda m, x: m.head(F.gelu(m.hidden(centred(x))))), "this is GELU"),
        "softmax": (forward(lambda m, x: TinyModel.forward(m, x).softmax(1)), "a softmax follows"),
        "log_softmax": (forward(lambda m, x: TinyModel.forward(m, x).log_softmax(-1)), "a log_softmax follows"),
        "argmax": (forward(lambda m, x: TinyModel.forward(m, x).argmax(1)), r"shape \[4\], expected \[4, 5\]"),
        "no head": (forward(lambda m, x: m.hidden(centred(x)).relu()), "what `hidden` returns"),
        "head first": (forward(lambda m, x: m.hidden(m.head(centred(x)).relu())), "`hidden` comes before `head`"),
        "not returned": (forward(lambda m, x: None), "does your function end in"),
        "no_grad": (forward(torch.no_grad()(TinyModel.forward)), "no gradient reaches"),
        "cut off after hidden": (
            forward(lambda m, x: m.head(m.hidden(centred(x)).relu().detach())),
            "no gradient reaches",
        ),
        "hidden and head in one width": (parts(hidden=lambda n, w, k: nn.Linear(n, k)), r"must be nn.Linear\(6, 7\)"),
        "the notebook's numbers": (parts(hidden=lambda n, w, k: nn.Linear(343, 64)), r"must be nn.Linear\(6, 7\)"),
        "no bias": (parts(head=lambda n, w, k: nn.Linear(w, k, bias=False)), r"must be nn.Linear\(7, 5\)"),
        "two in one": (
            parts(head=lambda n, w, k: nn.Sequential(nn.ReLU(), nn.Linear(w, k))),
            "is a Sequential, expected nn.Linear",
        ),
        "a part is missing": (parts(head=None), "no part `head`"),
        "without super": (WithoutSuper, "raised AttributeError"),
        "a function": (as_function, "expected the class TinyModel"),
        "an object": (TinyModel(6, 7, 5), "expected the class TinyModel"),
    },
)

# ---- 00.4 the share that is right


def by_mean(logits, labels):
    return (logits.argmax(1) == labels).float().mean()


def by_counting(logits, labels):
    return (logits.max(dim=1).indices == labels).sum().item() / len(labels)


def by_a_loop(logits, labels):
    right = 0
    for row, label in zip(logits, labels):
        if row.argmax() == label:
            right += 1
    return right / len(labels)


def by_numpy(logits, labels):
    return np.mean(logits.detach().float().numpy().argmax(axis=-1) == labels.numpy())


test_share_right = run_cases(
    ch00.check_share_right,
    right=[by_mean, by_counting, by_a_loop, by_numpy],
    wrong={
        "a count": (lambda z, y: (z.argmax(1) == y).sum(), "how many are right"),
        "a count as a number": (lambda z, y: (z.argmax(1) == y).sum().item(), "how many are right"),
        "errors": (lambda z, y: (z.argmax(1) != y).float().mean(), "share that is wrong"),
        "per cent": (lambda z, y: 100 * by_mean(z, y), "in per cent"),
        "rounded": (lambda z, y: round(by_counting(z, y), 1), "(is|are) wrong: found 0.4, expected 0.42857"),
        "mean of booleans": (lambda z, y: (z.argmax(1) == y).mean(), r"become numbers by .float\(\)"),
        "over the clips": (lambda z, y: (z.argmax(0) == y).float().mean(), "along dim=1"),
        "argmax of everything": (lambda z, y: (z.argmax() == y).float().mean(), "(is|are) wrong"),
        "probability": (lambda z, y: z.softmax(1)[range(len(y)), y].mean(), "mean probability"),
        "largest logits": (lambda z, y: z.max(1)[0].mean(), "compare their places"),
        "largest logits as answers": (
            lambda z, y: (z.max(dim=1)[0] == y).float().mean(),
            "largest logits themselves: compare their places",
        ),
        "smallest": (lambda z, y: (z.argmin(1) == y).float().mean(), "argmax, not argmin"),
        "by classes": (lambda z, y: (z.argmax(1) == y).sum() / z.shape[1], "number of classes"),
        "not averaged": (lambda z, y: (z.argmax(1) == y).float(), "is 7 numbers, expected one"),
        "classes": (lambda z, y: z.argmax(1), "is 7 numbers, expected one"),
        "positive logits": (lambda z, y: ((z > 0).int().argmax(1) == y).float().mean(), "(is|are) wrong"),
        "all right": (lambda z, y: torch.equal(z.argmax(1), y), "is a bool, expected one number"),
        "printed": (lambda z, y: print(by_mean(z, y)), "None: does your function end"),
        "the notebook's number": (lambda z, y: (z.argmax(1) == y).sum() / 147, "(is|are) wrong"),
    },
)

# ---- 00.5 one step of training


def step_plainly(model, optimiser, means, labels):
    loss = F.cross_entropy(model(means), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def step_zero_first(model, optimiser, x, y):
    optimiser.zero_grad(set_to_none=False)
    loss = nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    optimiser.step()
    return float(loss)


def step_by_hand(model, optimiser, means, labels):
    model.zero_grad()
    loss = -model(means).log_softmax(dim=1)[range(len(labels)), labels].mean()
    loss.backward()
    optimiser.step()
    return loss.detach().numpy()


def step_in_order(*order, loss_of=F.cross_entropy, give=lambda loss: loss.item()):
    """A step with the calls in this order: z for zero_grad, b for backward, s for step."""

    def step(model, optimiser, means, labels):
        loss = loss_of(model(means), labels)
        for part in order:
            {"z": optimiser.zero_grad, "b": lambda: loss.backward(retain_graph=True), "s": optimiser.step}[part]()
        return give(loss)

    return step


def step_with_its_own_optimiser(model, optimiser, means, labels):
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return step_plainly(model, optimiser, means, labels)


def step_with_another_optimiser(model, optimiser, means, labels):
    return step_plainly(model, torch.optim.SGD(model.parameters(), lr=0.01), means, labels)


def step_in_eval_mode(model, optimiser, means, labels):
    model.eval()
    return step_plainly(model, optimiser, means, labels)


def step_frozen(model, optimiser, means, labels):
    with torch.no_grad():
        loss = F.cross_entropy(model(means), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


test_training_step = run_cases(
    ch00.check_training_step,
    right=[step_plainly, step_zero_first, step_by_hand],
    wrong={
        "no zero_grad": (step_in_order("b", "s"), "old gradients are still there"),
        "no step": (step_in_order("z", "b"), "no weight moves"),
        "zero_grad after backward": (step_in_order("b", "z", "s"), "no weight moves"),
        "zero_grad at the end": (step_in_order("b", "s", "z"), "comes too late: old gradients may be there"),
        "step before backward": (step_in_order("z", "s", "b"), "no weight moves"),
        "no backward": (step_in_order("s"), r"loss.backward\(\) is missing"),
        "no backward, but zero_grad": (step_in_order("z", "s"), "no weight moves"),
        "twice": (step_in_order("z", "b", "s", "s"), "two steps were made"),
        "softmax": (
            step_in_order("z", "b", "s", loss_of=lambda z, y: F.cross_entropy(z.softmax(1), y)),
            "a softmax comes before",
        ),
        "upwards": (step_in_order("z", "b", "s", loss_of=lambda z, y: -F.cross_entropy(z, y)), "the loss goes up"),
        "sum": (
            step_in_order("z", "b", "s", loss_of=lambda z, y: F.cross_entropy(z, y, reduction="sum")),
            "losses of the clips were summed",
        ),
        "squared error": (
            step_in_order("z", "b", "s", loss_of=lambda z, y: F.mse_loss(z, F.one_hot(y, 4).float())),
            "a weight after two steps (is|are) wrong",
        ),
        "the tensor": (step_in_order("z", "b", "s", give=lambda loss: loss), "still holds its whole graph"),
        "nothing returned": (step_in_order("z", "b", "s", give=lambda loss: None), "does your function end"),
        "logits returned": (step_in_order("z", "b", "s", give=lambda loss: [0.1, 0.2]), "is 2 numbers"),
        "rounded": (step_in_order("z", "b", "s", give=lambda loss: round(loss.item(), 1)), "loss that is returned is"),
        "a detached tensor": (step_in_order("z", "b", "s", give=lambda loss: loss.detach()), r"number, loss.item\(\)"),
        "its own optimiser": (step_with_its_own_optimiser, "not by the optimiser that is given"),
        "another optimiser": (step_with_another_optimiser, "not by the optimiser that is given"),
        "eval": (step_in_eval_mode, "left in eval mode"),
        "no_grad": (step_frozen, "does not require grad"),
    },
)

# ---- 00.6 a clip that tells


def random_clip():
    return torch.rand(1, 1, 4, 4, 4)


def a_ramp():
    return torch.arange(64.0).reshape(1, 1, 4, 4, 4) ** 2


def a_few_voxels():
    clip = torch.zeros(1, 1, 4, 4, 4)
    clip[0, 0, 0, 0, 3] = 1
    clip[0, 0, 3, 1, 0] = 5
    return clip


def one_voxel():
    clip = torch.zeros(1, 1, 4, 4, 4)
    clip[0, 0, 0, 1, 2] = 1
    return clip


def lit(*places):
    clip = torch.zeros(1, 1, 4, 4, 4)
    for t, h, w in places:
        clip[0, 0, t, h, w] = 1
    return clip


def frames():
    return torch.arange(4.0)[:, None, None].expand(1, 1, 4, 4, 4)


test_telling_clip = run_cases(
    ch00.check_telling_clip,
    right=[random_clip, a_ramp, a_few_voxels, one_voxel, lambda: torch.randn(1, 1, 4, 4, 4).double()],
    wrong={
        "zeros": (lambda: torch.zeros(1, 1, 4, 4, 4), "by reshape gives the same 8 numbers"),
        "ones": (lambda: torch.ones(1, 1, 4, 4, 4), "by reshape gives the same 8 numbers"),
        "grey": (lambda: torch.full((1, 1, 4, 4, 4), 0.5), "right: 0.5 0.5"),
        "the first voxel": (lambda: lit((0, 0, 0)), "by reshape gives"),
        "the last voxel": (lambda: lit((3, 3, 3)), "by reshape gives"),
        "first and last": (lambda: lit((0, 0, 0), (3, 3, 3)), "by reshape gives"),
        "on the diagonal": (lambda: lit((0, 2, 0)), "order of columns, rows, time"),
        "symmetric in rows and columns": (lambda: lit((0, 2, 2)), "swaps rows and columns"),
        "the same backwards": (lambda: lit((0, 0, 2), (3, 3, 1)), "from the last to the first"),
        "blocks of one value": (
            lambda: (
                torch.arange(8.0)
                .view(1, 1, 2, 2, 2)
                .repeat_interleave(2, 2)
                .repeat_interleave(2, 3)
                .repeat_interleave(2, 4)
            ),
            "takes the largest voxel",
        ),
        "brighter frame by frame": (frames, "swaps rows and columns"),
        "a single row": (lambda: torch.arange(64.0), r"shape \[64\], expected \[1, 1, 4, 4, 4\]"),
        "without batch and channel": (lambda: torch.rand(4, 4, 4), "2 axes|3 axes"),
        "a volume of the notebook": (lambda: torch.rand(1, 1, 28, 28, 28), "expected \\[1, 1, 4, 4, 4\\]"),
        "whole numbers": (lambda: torch.arange(64).reshape(1, 1, 4, 4, 4), "is torch.int64"),
        "nan": (lambda: torch.full((1, 1, 4, 4, 4), torch.nan), "inf or nan"),
        "numpy": (lambda: np.random.rand(1, 1, 4, 4, 4), "is a ndarray"),
        "no return": (lambda: None, "does your function end"),
        "an argument": (lambda clip: clip, "(?s)raised TypeError.*called without arguments"),
    },
)


# ---- the chapter's table of letters, and its pages of volumes


def test_the_table_of_letters_is_that_of_the_model_in_the_chapter():
    model, facts = recorded_model("full")
    config, (nt, s) = model.config, model.grid
    text = (checkout() / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    for row in (
        f"| T, H, W | frames (slices), rows, columns | {', '.join(map(str, config.clip_shape[1:]))} |",
        f"called a **tubelet** | {', '.join(map(str, config.tubelet))} |",
        f"| nt, nh, nw | tubelets along each axis | {', '.join(map(str, model.embedding.grid))} |",
        f"| S | tokens at one time index, nh · nw | {s} |",
        f"| N | tokens in a clip, nt · S | {nt * s} |",
        f"| D | numbers in a token | {config.dim} |",
        f"| heads | attention patterns side by side | {config.heads} |",
        f"| L | layers | {config.depth} over space, then {config.temporal_depth} over time |",
        f"| K | classes | {len(facts['class_names'])} |",
    ):
        assert row in text, row


def test_pages_say_what_the_model_answers(displayed):  # noqa: F811
    model, facts = recorded_model("full")
    generator = torch.Generator().manual_seed(0)
    clips = (255 * torch.rand(2, 1, 28, 28, 28, generator=generator)).to(torch.uint8)
    masks = torch.zeros(2, 28, 28, 28, dtype=torch.uint8)
    masks[:, :14] = 1
    split, names = Split(clips, torch.tensor([0, 1]), masks=masks), facts["class_names"]
    figure = attention_widget.draw_reading(model, split, names, 1)
    answer = names[int(model(clips[1:] / 255).argmax())]
    assert figure.get_suptitle().startswith(f"{names[1]}, read as {answer} (")
    attention_widget.reading_strip(model, split, names, [0, 1])
    assert displayed[0][1].startswith("2 pictures")
    shares = attention_widget.attention_on_organs(model, split)
    assert [len(values) for values in shares.values()] == [2, 2]
    assert list(shares.values())[0].tolist() == [0.5, 0.5]
