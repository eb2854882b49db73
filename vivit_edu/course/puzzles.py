"""The puzzles of chapter 04: clips in which every tubelet has a twin, the small network that learns them, and the
printed tables of its example with four tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

TUBELETS = 12  # nt·nh·nw = 3·2·2, the course's running example
WIDTH = 64  # D of the network
NUMBERS = 10  # each tubelet of the first puzzle carries one from 0 to 9


def patterns_and_twins(batch: int, voxels: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of 12 tubelets that show six patterns, each of them twice, in random places.

    voxels: of a pattern. Returns the patterns, -1 or 1 as float32 [B, 12, voxels], and for every tubelet where its twin
    is, int64 [B, 12].
    """
    drawn = torch.randint(0, 2, (batch, TUBELETS // 2, voxels)) * 2.0 - 1
    order = torch.rand(batch, TUBELETS).argsort(dim=1)
    patterns = torch.cat((drawn, drawn), dim=1).take_along_dim(order[..., None], dim=1)
    place = order.argsort(dim=1)
    return patterns, place.take_along_dim((order + TUBELETS // 2) % TUBELETS, dim=1)


def twins(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first puzzle: every tubelet carries a number, and has a twin that shows the same pattern.

    Returns the tubelets, 16 voxels and the number one-hot, float32 [B, 12, 16 + 10]; the answers, the number that each
    tubelet's twin carries, int64 [B, 12]; and where the twin is, int64 [B, 12].
    """
    patterns, twin = patterns_and_twins(batch)
    numbers = torch.randint(0, NUMBERS, (batch, TUBELETS))
    return torch.cat((patterns, F.one_hot(numbers, NUMBERS)), dim=-1), numbers.gather(1, twin), twin


def two_questions(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The second puzzle: tubelets have a left half, a right half and a digit from 0 to 3; each half has its own twin.

    Returns the tubelets, float32 [B, 12, 8 + 8 + 4]; the answers, 4 · (digit of the tubelet with the same left half) +
    digit of the one with the same right half, int64 [B, 12]; and where the two twins are, int64 [B, 12, 2].
    """
    (left, left_twin), (right, right_twin) = patterns_and_twins(batch, 8), patterns_and_twins(batch, 8)
    digits = torch.randint(0, 4, (batch, TUBELETS))
    answers = 4 * digits.gather(1, left_twin) + digits.gather(1, right_twin)
    return torch.cat((left, right, F.one_hot(digits, 4)), dim=-1), answers, torch.stack((left_twin, right_twin), -1)


class Average(nn.Module):
    """A mixer without attention: every token receives the mean of all values, [B, N, D] -> [B, 1, D].

    It has as many weights as multi-head attention of the same width.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.value, self.out = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.out(self.value(z).mean(dim=1, keepdim=True))


class OneBlock(nn.Module):
    """Embedding, learned positions, one block and a head for every token: [B, 12, inputs] -> [B, 12, outputs].

    mixer: what mixes the tokens, [B, N, D] -> [B, N, D] or [B, 1, D]; mlp: what treats each of them separately.
    """

    def __init__(self, mixer: nn.Module, mlp: nn.Module, inputs: int, outputs: int):
        super().__init__()
        self.embed, self.head = nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, outputs)
        self.positions = nn.Parameter(torch.randn(TUBELETS, WIDTH))
        self.mixer, self.mlp = mixer, mlp
        self.norm_mixer, self.norm_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def mixed(self, tubelets: torch.Tensor) -> torch.Tensor:
        """What the mixer is given: [B, 12, D]."""
        return self.norm_mixer(self.embed(tubelets) + self.positions)

    def forward(self, tubelets: torch.Tensor) -> torch.Tensor:
        z = self.embed(tubelets) + self.positions
        z = z + self.mixer(self.norm_mixer(z))
        z = z + self.mlp(self.norm_mlp(z))
        return self.head(z)


def learn(
    mixer: Callable[[], nn.Module],
    mlp: Callable[[int, int], nn.Module],
    puzzle: Callable,
    *,
    seeds: int = 3,
    steps: int = 250,
) -> list[tuple[OneBlock, list[float]]]:
    """Trains a network for each seed, with Adam on batches of 32 new clips.

    mixer: makes what mixes the tokens, of width 64. mlp: a class, MLP(64, 256). puzzle: `twins` or `two_questions`.
    Returns for each seed the network and the share of right answers at each step.
    """
    return [train(mixer, mlp, puzzle, seed, steps) for seed in range(seeds)]


def train(
    mixer: Callable[[], nn.Module], mlp: Callable[[int, int], nn.Module], puzzle: Callable, seed: int, steps: int
) -> tuple[OneBlock, list[float]]:
    """One network of `learn`."""
    outputs = {twins: NUMBERS, two_questions: 16}[puzzle]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, right = OneBlock(mixer(), mlp(WIDTH, 4 * WIDTH), puzzle(1)[0].shape[-1], outputs), []
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(steps):
            tubelets, answers, _ = puzzle(32)
            logits = model(tubelets)
            right.append((logits.argmax(dim=-1) == answers).float().mean().item())
            optimiser.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()
            optimiser.step()
    return model, right


def both_digits(model: OneBlock, clips: int = 200, seed: int = 9) -> tuple[float, float]:
    """How often a network trained on `two_questions` has the left digit right, and how often the right one."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        tubelets, answers, _ = two_questions(clips)
        guess = model(tubelets).argmax(dim=-1)
    return (guess // 4 == answers // 4).float().mean().item(), (guess % 4 == answers % 4).float().mean().item()


def table(title: str, rows: torch.Tensor, names: tuple[str, ...] = ("bone", "edge", "fat ", "lung")) -> None:
    """Prints a small matrix, a line for each token."""
    print(title)
    for name, row in zip(names, rows.tolist()):
        print(" ", name, *(f"{value:z7.2f}" for value in row))
