"""How good is a map? Deletion and insertion curves, and, if the organ's mask is known, hits on it.

A map that names the tubelets a model relies on makes the class's probability fall fast when they turn grey
in its order (deletion), and rise fast when they come back in its order (insertion). Chapter 13 uses this.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import nn

from ..embedding import fit_to_grid
from ..errors import ConfigError
from ..support.options import check_whole
from ..vivit import ViViT
from .occlusion import chosen, grey, masked_logits, occlusion, take
from .relevance import input_gradient, relevance
from .rollout import last_layer, rollout, to_voxels
from .weights import check_vivit, widen

RANDOM, CONTRAST = "random order", "contrast, no model"
METHODS = {
    "last layer": last_layer,
    "rollout": rollout,
    "relevance": relevance,
    "input gradient": input_gradient,
    "occlusion": occlusion,
}


@dataclass(frozen=True)
class Estimate:
    """A mean over clips and its 95 % confidence interval, from a bootstrap over the clips."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Faithfulness:
    """Curves [B, steps + 1] of the class's probability over the share of tubelets, 0 to 1, and their areas.

    deletion: lower is better; insertion: higher is better. gain: (insertion - deletion) beyond that of the
    random order, clip by clip; an interval above 0 means that the map is better than chance.
    """

    deletion_curves: torch.Tensor
    insertion_curves: torch.Tensor
    deletion: Estimate
    insertion: Estimate
    gain: Estimate

    def areas(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The areas under the deletion and the insertion curves, clip by clip: [B] and [B]."""
        return tuple(area(curves) for curves in (self.deletion_curves, self.insertion_curves))


def faithfulness(
    model: nn.Module,
    clips: torch.Tensor,
    maps: torch.Tensor | dict[str, torch.Tensor],
    *,
    classes: torch.Tensor | None = None,
    steps: int = 16,
    random_orders: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Faithfulness]:
    """Deletion and insertion scores of one or more maps on the same clips: {name: Faithfulness}.

    clips: float [B, C, T, H, W] in [0, 1], on the model's device. maps: float [B, nt, S], larger meaning more
    important, or a dict of them; {"random order": …} is added, the mean of `random_orders` draws per clip.
    classes: int [B], by default those predicted. steps: in how many equal parts the tubelets go.
    Raises ConfigError if a map does not fit the model's grid or the clips, and if there are no clips.
    """
    model = check_vivit(model, clips)
    for name, number in (("steps", steps), ("random_orders", random_orders)):
        check_whole(name, number, 1)
    maps = dict(maps) if isinstance(maps, dict) else {"map": maps}
    for name, scores in maps.items():
        check_map(model, clips, scores, name)
    with torch.no_grad():
        classes = chosen(model.eval()(clips), classes)
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(random_orders, len(clips), *model.grid, generator=generator)
    orders = {name: [scores] for name, scores in maps.items()} | {RANDOM: list(chance)}
    curves = {}
    for name, drawn in orders.items():
        keep = torch.cat([selections(scores, steps) for scores in drawn], dim=1)  # [B, draws·2·(steps+1), nt, S]
        logits = masked_logits(model, clips, keep, progress=progress, title=name)
        of_class = take(widen(logits).softmax(dim=-1), classes).cpu()  # [B, draws·2·(steps+1)]
        curves[name] = reduce(of_class, "b (draw kind step) -> kind b step", "mean", kind=2, draw=len(drawn))
    areas = {name: area(both) for name, both in curves.items()}  # [2, B]
    margin = {name: insertion - deletion for name, (deletion, insertion) in areas.items()}
    return {
        name: Faithfulness(
            *curves[name],
            *(estimate(area, seed) for area in areas[name]),
            estimate(margin[name] - margin[RANDOM], seed),
        )
        for name in orders
    }


def area(curves: torch.Tensor) -> torch.Tensor:
    """The area under curves [..., steps + 1] over 0 to 1."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[-1] - 1))


def contrast_map(model: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    """How far each tubelet is from the clip's mean voxel, on average: [B, nt, S]. A control that asks no model.

    Deletion puts that mean in a tubelet's place, so a tubelet of great contrast is changed most, whatever the model
    makes of it. It uses only the model's tubelets.
    """
    plain = check_vivit(model, clips)
    (t, h, w), away = plain.embedding.tubelet, (clips - grey(clips)).abs()
    whole = fit_to_grid(away, plain.embedding.grid, (t, h, w))  # [B, C, n_t·t, n_h·h, n_w·w]
    return reduce(widen(whole), "b c (i t) (j h) (k w) -> b i (j k)", "mean", t=t, h=h, w=w)


def selections(scores: torch.Tensor, steps: int) -> torch.Tensor:
    """Which tubelets stay at each step, in the order of the scores [B, nt, S]: bool [B, 2·(steps+1), nt, S].

    First deletion, the best tubelets gone first, from all of them to none; then insertion, the best first back.
    """
    n = scores[0].numel()
    ranks = scores.flatten(1).argsort(dim=1, descending=True).argsort(dim=1)  # [B, N], 0 for the best
    counts = torch.linspace(0, n, min(steps, n) + 1, device=scores.device).round()  # tubelets handled at each step
    handled = rearrange(ranks, "b n -> b 1 n") < rearrange(counts, "k -> 1 k 1")  # [B, steps + 1, N]
    return torch.cat((~handled, handled), dim=1).unflatten(2, scores.shape[1:])


def all_maps(
    model: nn.Module,
    clips: torch.Tensor,
    *,
    methods: dict[str, Callable[..., torch.Tensor]] = METHODS,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, torch.Tensor]:
    """The maps of every method, and the same from a model of random weights: {name: [B, nt, S]}.

    A method whose map does not change when everything learned is thrown away explains the architecture
    rather than the model (Adebayo et al. 2018). Both are for the class that the trained model predicts.
    """
    from tqdm.auto import tqdm

    model = check_vivit(model, clips)
    blank = randomised(model, seed)
    with torch.no_grad():
        classes = model.eval()(clips).argmax(dim=1)
    maps = {}
    for name, method in tqdm(methods.items(), desc="maps", disable=not progress):
        options = {} if name in ("last layer", "rollout") else {"classes": classes}
        options |= {"progress": False} if name == "occlusion" else {}
        maps[name] = method(model, clips, **options)
        maps[f"{name}, random weights"] = method(blank, clips, **options)
    return maps


def randomised(model: nn.Module, seed: int = 0) -> ViViT:
    """A model of the same kind and sizes whose weights are drawn again, on the same device and in the same type."""
    model, like = check_vivit(model), next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(model)(model.config).to(like).eval()


# ---- against the organ's mask


def organ_scores(
    model: nn.Module, maps: torch.Tensor, masks: torch.Tensor | None, *, seed: int = 0
) -> dict[str, Estimate]:
    """How a map [B, nt, S] meets the organ's masks uint8 [B, T, H, W]: {"share", "pointing", "iou": Estimate}.

    share: of the map (its positive part) that lies on the organ. pointing: how often the best tubelet touches
    the organ. iou: intersection over union of the organ and the best tubelets, as many as fill its volume.
    Compare with the same for a random map: every map hits an organ that fills the clip.
    Raises ConfigError if there are no maps, no masks, or masks without an organ.
    """
    check_masks(masks, maps)
    masks = masks.to(maps.device).float()
    positive = to_voxels(model, maps.clamp(min=0))  # [B, T, H, W]
    share = (positive * masks).flatten(1).sum(1) / positive.flatten(1).sum(1).clamp(min=1e-12)
    ranks = maps.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).unflatten(1, maps.shape[1:])
    tubelet = masks[0].numel() / maps[0].numel()  # voxels
    wanted = (masks.flatten(1).sum(1) / tubelet).round().clamp(min=1)  # tubelets
    best = to_voxels(model, (ranks < wanted[:, None, None]).float())
    first = to_voxels(model, (ranks == 0).float())
    both, either = ((best * masks).flatten(1).sum(1), torch.maximum(best, masks).flatten(1).sum(1))
    hit = ((first * masks).flatten(1).sum(1) > 0).float()
    return {"share": estimate(share, seed), "pointing": estimate(hit, seed), "iou": estimate(both / either, seed)}


def estimate(values: torch.Tensor, seed: int = 0, draws: int = 2000) -> Estimate:
    """Mean of values [B] with the 95 % interval of its bootstrap: clips drawn again, with replacement."""
    values = values.detach().cpu().double()
    generator = torch.Generator().manual_seed(seed)
    means = values[torch.randint(len(values), (draws, len(values)), generator=generator)].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return Estimate(values.mean().item(), low, high)


def check_map(model: ViViT, clips: torch.Tensor, scores: torch.Tensor, name: str) -> None:
    """Refuses a map that does not have one score for each token of each clip."""
    expected = (len(clips), *model.grid)
    if tuple(scores.shape) != expected:
        raise ConfigError(
            f"the map {name!r} has shape {list(scores.shape)}, expected [B, nt, S] = {list(expected)}: "
            "a score for each token of the model, not for each voxel"
        )


def check_masks(masks: torch.Tensor | None, maps: torch.Tensor) -> None:
    """Refuses masks that are missing, or have no organ, and an empty batch of maps."""
    if len(maps) == 0:
        raise ConfigError(f"there are no maps to score: got {list(maps.shape)} with B = 0; give at least one")
    if masks is None or len(masks) != len(maps):
        given = "None" if masks is None else f"{len(masks)} masks"
        raise ConfigError(
            f"{given} for {len(maps)} maps: give one mask [T, H, W] per clip; of the data sets here, "
            "organphantom3d has masks"
        )
    empty = [i for i, mask in enumerate(masks) if not mask.any()]
    if empty:
        raise ConfigError(f"the masks of clips {empty} are empty: there is no organ to hit; leave these clips out")
