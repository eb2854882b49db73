"""The shape ledger: a table of the modules that chapters build, what goes in, what comes out and what each costs.

It shows what is new at the end of a chapter, or of several together. Only names and einops patterns are typed in:
the package's modules are built at the course's sizes and run on torch's meta device, which knows shapes and computes
no values.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from html import escape

import torch
from torch import nn

from ..attention import MultiHeadAttention, over_space
from ..cost import count_parameters
from ..embedding import FrameEmbedding, TubeletEmbedding, learned_positions, prepend_cls
from ..explain.weights import attention_maps, recorded_attention
from ..models import build_model, model_class
from ..vivit import Block, FactorisedDotProductBlock, FactorisedSelfAttentionBlock, ViViTConfig

BATCH = 2  # shown as B
FLOAT32 = 4  # bytes
COLUMNS = (
    "chapter",
    "module",
    "einops pattern",
    "in",
    "out",
    "tokens",
    "attention memory",
    "parameters",
    "paper",
)
CAPTION = (
    "Attention memory: the weights of one head in one layer for one clip, in float32, where they are kept at "
    "all (of a whole model: its largest layer). Paper: ViViT-B/16x2 on 32 frames of 224×224, as published."
)


@dataclass(frozen=True)
class LedgerRow:
    """One module: shapes as tuples with the batch first, attention in bytes (0 where the module has none)."""

    chapter: int
    module: str
    pattern: str
    given: tuple[int, ...]
    made: tuple[int, ...]
    tokens: int
    attention: int
    parameters: int
    paper: str = ""


@cache
def rows() -> tuple[LedgerRow, ...]:
    """The whole ledger, in teaching order."""
    config = ViViTConfig()  # the course's sizes
    clips = torch.empty(BATCH, *config.clip_shape, device="meta")
    with torch.device("meta"), torch.no_grad():
        tubelets = TubeletEmbedding(config.clip_shape, config.dim, config.tubelet)
        frames = FrameEmbedding(config.clip_shape, config.dim, config.tubelet)
        grid = tubelets(clips)  # [B, nt, S, D]
        sequence = grid.flatten(1, 2)  # [B, N, D]
        positions = learned_positions(*grid.shape[1:])
        cls = torch.nn.Parameter(torch.zeros(1, 1, config.dim))
        attention, block = MultiHeadAttention(config.dim, config.heads, config.dropout), Block(config)
        return (
            row(3, "TubeletEmbedding", "b c (nt pt) (nh ph) (nw pw) -> b nt (nh nw) (c pt ph pw)", tubelets, clips),
            row(3, "FrameEmbedding", "b c nt (nh ph) (nw pw) -> b nt (nh nw) (c ph pw)", frames, clips),
            row(3, "learned_positions", "", lambda z: z + positions, grid, learned=positions.numel()),
            row(4, "MultiHeadAttention", "b n (three heads d) -> three b heads n d", attention, sequence),
            row(5, "prepend_cls", "", lambda z: prepend_cls(z, cls), sequence, learned=cls.numel()),
            row(5, "Block", "b nt s d -> b (nt s) d", block, sequence),
            whole_model(5, "spacetime", clips),
            row(6, "Block over space", "b nt s d -> (b nt) s d", block, grid, run=partial(over_space, block)),
            row(6, "Block over time", "(b nt) d -> b nt d", block, grid.mean(dim=2)),
            whole_model(6, "factorised_encoder", clips),
            row(
                7,
                "FactorisedSelfAttentionBlock",
                "b nt s d -> (b nt) s d; b nt s d -> (b s) nt d",
                FactorisedSelfAttentionBlock(config),
                grid,
            ),
            whole_model(7, "factorised_self_attention", clips),
            row(
                8,
                "FactorisedDotProductBlock",
                "b nt s (three half heads d) -> half three b nt s heads d",
                FactorisedDotProductBlock(config),
                grid,
            ),
            whole_model(8, "factorised_dot_product", clips),
        )


def row(
    chapter: int,
    name: str,
    pattern: str,
    module: nn.Module | Callable[[torch.Tensor], torch.Tensor],
    given: torch.Tensor,
    *,
    run: Callable[[torch.Tensor], torch.Tensor] | None = None,
    learned: int | None = None,
) -> LedgerRow:
    """Runs a module, or `run` in its place, and writes down its shapes and costs.

    given: the tensor that goes in. A plain function in the module's place has `learned` parameters and no attention.
    """
    if learned is None:
        learned = count_parameters(module)
        with recorded_attention(module) as record:
            made = (run or module)(given)
    else:
        record, made = [], module(given)
    size = FLOAT32 * sum(w.numel() for w in record) // (BATCH * ViViTConfig.heads)
    tokens = made.shape[1:-1].numel()
    return LedgerRow(chapter, name, pattern, tuple(given.shape), tuple(made.shape), tokens, size, learned)


def whole_model(chapter: int, name: str, clips: torch.Tensor) -> LedgerRow:
    """The row of one of Models 1 to 4, with what the paper says about its large version."""
    model, record = build_model(name), model_class(name)
    title = f"{record.__name__} ({record.title.partition(', ')[0]})"
    layers = {}
    for m in attention_maps(model, clips):
        layers[m.layer] = layers.get(m.layer, 0) + m.weights.numel() // (BATCH * model.config.heads)
    millions, gflops = record.paper
    tokens, largest = torch.Size(model.grid).numel(), max(layers.values())
    shapes = tuple(clips.shape), tuple(model(clips).shape)
    paper = f"{millions} M, {gflops} GFLOPs"
    return LedgerRow(chapter, title, "", *shapes, tokens, largest * FLOAT32, count_parameters(model), paper)


def ledger(chapter: int | str, since: int | str | None = None) -> None:
    """Displays the rows that a chapter adds (5 or "05"), or all of several chapters together.

    since: the first of them; None is this chapter alone.
    """
    from IPython.display import display

    first = int(chapter if since is None else since)
    table = [cells(r) for r in rows() if first <= r.chapter <= int(chapter)]
    if not table:
        print(f"Chapter {int(chapter):02d} adds no module to the shape ledger; chapters 03 to 08 do.")
        return
    display({"text/html": ledger_as_html(table), "text/plain": ledger_as_text(table)}, raw=True)


def cells(r: LedgerRow) -> tuple[str, ...]:
    """One row as a reader sees it, in the order of COLUMNS."""
    shapes = as_shape(r.given), as_shape(r.made)
    numbers = str(r.tokens), as_bytes(r.attention), f"{r.parameters:,}"
    return f"{r.chapter:02d}", r.module, r.pattern, *shapes, *numbers, r.paper


def as_shape(shape: tuple[int, ...]) -> str:
    """A shape as readers see it, its batch as B."""
    return f"[B, {', '.join(map(str, shape[1:]))}]"


def as_bytes(size: int) -> str:
    """Bytes as B or KiB; nothing where there are none."""
    return f"{size / 1024:g} KiB" if size >= 1024 else f"{size} B" if size else ""


def ledger_as_html(table: list[tuple[str, ...]]) -> str:
    """A table without a style sheet, since GitHub ignores them: patterns break only at their arrow, long names between
    words, shapes and numbers nowhere."""
    lines = ["".join(f"<th>{name}</th>" for name in COLUMNS)]
    for line in table:
        texts = [escape(text) for text in line]
        texts[1] = re.sub(r"(?<=[a-z])(?=[A-Z])", "<wbr>", texts[1])
        texts[2:-1] = [text.replace(" ", "&nbsp;") for text in texts[2:-1]]
        pattern = texts[2].replace("-&gt;&nbsp;", "-&gt; ").replace(";&nbsp;", "; ")
        texts[2] = f"<code>{pattern}</code>" if pattern else ""
        lines.append("".join(f"<td>{text}</td>" for text in texts))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table><p>{escape(CAPTION)}</p>"


def ledger_as_text(table: list[tuple[str, ...]]) -> str:
    """The same in fixed-width text, for readers without HTML."""
    lines = [COLUMNS, *table]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([*lines, CAPTION])
