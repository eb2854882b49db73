"""The record of each model: what it says is what the model does, and a fifth model is one class and one line."""

import json
import subprocess
import sys

import pytest
import torch

import vivit_edu.data
import vivit_edu.experiments.runs
from tests.references import VIVITS, noise, randomise, small
from vivit_edu import ConfigError, attention_maps, build_model, count_flops, models, rollout
from vivit_edu.attention import over_space, over_time
from vivit_edu.cli import main
from vivit_edu.cost import PAPER, attention_pairs
from vivit_edu.course import pictures
from vivit_edu.explain import METHODS
from vivit_edu.models import MODELS, check_options, is_vivit, model_class, model_options
from vivit_edu.vivit import (
    Block,
    DropPath,
    FactorisedEncoder,
    FactorisedSelfAttention,
    FactorisedSelfAttentionBlock,
    ViViT,
)
from vivit_edu.volumes import Split, Volumes

# ---- models that the package does not have


class TimeFirstBlock(FactorisedSelfAttentionBlock):
    def forward(self, z):
        z = z + self.drop_path(over_time(self.time_attention, self.norm_time(z)))
        z = z + self.drop_path(over_space(self.space_attention, self.norm_space(z)))
        return z + self.drop_path(self.mlp(self.norm_mlp(z)))


class TimeFirst(FactorisedSelfAttention):
    """Model 3 in the other order, as in the authors' configuration."""

    title = "Model 5, time first"
    paper = None
    kinds = ("time", "space")
    block = TimeFirstBlock


class SpaceBlock(Block):
    def forward(self, z):
        z = z + self.drop_path(over_space(self.attention, self.norm_attention(z)))
        return z + self.drop_path(self.mlp(self.norm_mlp(z)))


class SpaceOnly(FactorisedSelfAttention):
    """Attention among the tokens of a time index alone, and the mean over all."""

    title = "Model 5, space only"
    paper = None
    kinds = ("space",)
    block = SpaceBlock


class Sandwich(FactorisedSelfAttention):
    """Space, time and space again in each block: a kind that comes twice."""

    title = "Model 5, sandwich"
    paper = None
    kinds = ("space", "time", "space")

    class block(FactorisedSelfAttentionBlock):
        def __init__(self, config, drop_path=0.0):
            super().__init__(config, drop_path)
            self.again = Block(config)

        def forward(self, z):
            return over_space(self.again, super().forward(z))


class SpaceEncoder(FactorisedEncoder):
    """Model 2 without its temporal encoder, by its record too."""

    title = "Model 5, spatial encoder"
    paper = None
    kinds = ("space",)

    def __init__(self, config):
        from dataclasses import replace

        super().__init__(replace(config, temporal_depth=0))


NEW = {"time_first": TimeFirst, "space_only": SpaceOnly, "sandwich": Sandwich, "space_encoder": SpaceEncoder}
SIZES = {"clip_shape": (2, 6, 6, 12), "num_classes": 5, "tubelet": (2, 3, 3), "dim": 24, "heads": 4, "mlp_dim": 48}


@pytest.fixture(params=NEW)
def new(request, monkeypatch):
    """The name of a fifth model, known to the package by one line."""
    monkeypatch.setitem(models.VIVITS, request.param, (f"{__name__}:{NEW[request.param].__name__}", {}))
    return request.param


def lifted(m, n_t, s):
    """The mean over heads of a map as a dense [B, N, N] matrix, by loops over tokens."""
    a = m.weights.mean(dim=2)
    dense = torch.zeros(len(a), n_t * s, n_t * s)
    for t in range(n_t):
        for i in range(s):
            for j in range(s if m.kind == "space" else n_t):
                row, column = (t * s + i, t * s + j) if m.kind == "space" else (t * s + i, j * s + i)
                dense[:, row, column] = a[:, t, i, j] if m.kind == "space" else a[:, i, t, j]
    return dense


def test_a_fifth_model_is_used_like_the_others(new):
    model = randomise(build_model(new, depth=2, **SIZES)).eval()
    assert type(model) is NEW[new] and is_vivit(new) and "tubelet" in model_options(new)
    clips, (n_t, s) = noise(2, *SIZES["clip_shape"]), model.grid
    maps = attention_maps(model, clips)
    assert [m.kind for m in maps] == 2 * list(model.kinds)
    assert [m.layer for m in maps] == [layer for layer in range(2) for _ in model.kinds]
    r = torch.eye(n_t * s)
    for m in maps:
        torch.testing.assert_close(m.weights.sum(dim=-1), torch.ones(m.weights.shape[:-1]))
        r = (lifted(m, n_t, s) + torch.eye(n_t * s)) / 2 @ r
    torch.testing.assert_close(rollout(model, clips).flatten(1), r.mean(dim=1))
    for name, method in METHODS.items():
        options = {"progress": False} if name == "occlusion" else {}
        assert method(model, clips, **options).shape == (2, n_t, s), name
    pairs = {"time_first": n_t * s * (n_t + s), "sandwich": n_t * s * (n_t + 2 * s)}.get(new, n_t * s * s)
    assert attention_pairs(new, n_t, s) == pairs
    assert count_flops(model, SIZES["clip_shape"]) > count_flops(small("spacetime", depth=1), SIZES["clip_shape"])
    assert new not in PAPER  # which lists what the paper measured
    with pytest.raises(ConfigError, match="no option width"):
        check_options(new, {"width": 8})


def test_a_fifth_model_is_drawn_like_the_others(new):
    figure = pictures.architecture(new)
    assert NEW[new].title in figure.alt_text
    assert ("attention over time" in figure.alt_text) == ("time" in NEW[new].kinds)
    assert "Model 5" in pictures.mask_figure(new).alt_text
    space = pictures.visibility_mask(new, 3, 2, 2, "space")
    assert torch.equal(space, pictures.visibility_mask("factorised_self_attention", 3, 2, 2, "space"))


def test_a_fifth_model_is_trained_and_explained_on_the_command_line(new, tmp_path, monkeypatch, capsys):
    def split(n, seed):
        clips = torch.randint(0, 256, (n, 1, 28, 28, 28), generator=torch.Generator().manual_seed(seed))
        return Split(clips.to(torch.uint8), torch.arange(n) % 3)

    volumes = Volumes("tiny", ("a", "b", "c"), split(6, 0), split(6, 1), split(6, 2))
    for module in (vivit_edu.data, vivit_edu.experiments.runs):
        monkeypatch.setattr(module, "load_volumes", lambda *_, **__: volumes)
    out = str(tmp_path / "run")
    command = ["train", "tiny", "--model", new, "--epochs", "1", "--preset", "quick", "--device", "cpu", "--out", out]
    assert main(command) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["model"] == new
    assert (tmp_path / "run" / "attention.png").exists()
    assert main(["evaluate", out, "--device", "cpu"]) == 0
    assert main(["explain", out, "--device", "cpu"]) == 0


# ---- the four


def test_models_by_name_load_no_torch():
    code = "import sys, vivit_edu.models as m; m.is_vivit('cnn3d'); print(len(m.MODELS), 'torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["11", "False"]


def test_names_lead_to_their_models():
    assert MODELS == (*models.VIVITS, *models.CNNS) and MODELS[:4] == VIVITS
    for name in (*MODELS, "torchvision:r3d_18"):
        assert type(build_model(name)) is model_class(name)
        assert is_vivit(name) == issubclass(model_class(name), ViViT)
    for wrong in ("model5", "", None, 3, ["spacetime"]):
        with pytest.raises(ConfigError, match="no model is called.*spacetime.*cnn3d.*torchvision:r3d_18"):
            model_class(wrong)


def test_the_papers_figures_are_the_classes():
    assert list(PAPER) == list(VIVITS)
    assert PAPER == {name: model_class(name).paper for name in VIVITS}
    assert [model_class(name).title[:7] for name in VIVITS] == ["Model 1", "Model 2", "Model 3", "Model 4"]
    assert [model_class(name).attention_halves for name in VIVITS] == [False, False, False, True]


@pytest.mark.parametrize("name", VIVITS)
@pytest.mark.parametrize("n_t, s", [(1, 1), (3, 4), (5, 2)])
def test_pairs_are_counted_as_they_are_seen(name, n_t, s):
    model = model_class(name)
    for kind in model.kinds:
        assert model.pairs(kind, n_t, s) == model.sees(kind, n_t, s).sum()
    total = sum(int(model.sees(kind, n_t, s).sum()) for kind in model.kinds)
    assert attention_pairs(name, n_t, s) == total // (2 if name == "factorised_dot_product" else 1)


# ---- stochastic depth


@pytest.mark.parametrize("name", VIVITS)
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_clip_skips_a_branch_with_all_of_its_time_indices(name, pool):
    if pool == "cls" and name not in VIVITS[:2]:
        pytest.skip("Models 3 and 4 have no cls token")
    rate, clips = 0.4, noise(400, 1, 4, 2, 2)
    sizes = {"clip_shape": (1, 4, 2, 2), "tubelet": (1, 2, 1), "dim": 4, "heads": 2, "mlp_dim": 4, "num_classes": 2}
    torch.manual_seed(0)
    sizes |= {"temporal_depth": 2} if name == "factorised_encoder" else {}
    model = build_model(name, pool=pool, depth=2, drop_path=rate, **sizes).train()
    seen = []
    for module in model.modules():
        if isinstance(module, DropPath):
            module.register_forward_hook(lambda *branch: seen.append(branch))
    with torch.no_grad():
        model(clips)
    folded = 0
    for module, (branch,), left in seen:
        kept = left.flatten(1).any(dim=1).unflatten(0, (len(clips), -1))  # [B, rows of a clip]
        assert (kept == kept[:, :1]).all()  # all time indices of a clip agree
        rows = kept.flatten()
        torch.testing.assert_close(left[rows], branch[rows] / (1 - module.rate))  # so the expectation is unchanged
        if module.rate == 0:
            assert kept.all()
            continue
        share = kept[:, 0].float().mean().item()
        assert share == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / len(clips)) ** 0.5)
        folded += kept.shape[1] > 1
    assert (folded > 0) == (name == "factorised_encoder") and any(module.rate for module, *_ in seen)
