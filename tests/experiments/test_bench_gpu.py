"""The GPU bench runs from end to end in its rehearsal, compares like with like, and says that it is a rehearsal."""

import pytest
import torch

from vivit_edu.cli import main
from vivit_edu.cost import count_parameters
from vivit_edu.errors import ConfigError
from vivit_edu.experiments.bench import gpu as bench_gpu
from vivit_edu.experiments.bench import libraries as peers
from vivit_edu.training import Recipe

CPU = torch.device("cpu")


def test_the_rehearsal_prints_every_row_and_says_what_it_is(capsys):
    assert main(["bench", "gpu", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for row in (
        "spacetime, ours",
        "spacetime, transformers, compiled",
        "factorised_encoder, vit-pytorch",
        "factorised_self_attention, vit-pytorch",
        "factorised_dot_product, ours, compiled",
        "paper-b, forward and backward",
        "% of the measured peak",
        "preset full, 1 epochs of 32 volumes, eager",
    ):
        assert row in printed, row
    assert "REHEARSAL" in printed and "vivit-edu bench gpu" in printed


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_have_our_size(name):
    """What they do otherwise (cls tokens, two more LayerNorms in the embedding) is small; a missing layer is not."""
    sizes = bench_gpu.GPUSizes(
        clip_shape=(3, 8, 32, 32), options={"tubelet": (2, 16, 16), "dim": 96, "depth": 3, "heads": 3, "mlp_dim": 384}
    )
    ours, theirs = count_parameters(peers.build_ours(name, sizes)), count_parameters(peers.PEERS[name][1](sizes))
    assert theirs == pytest.approx(ours, rel=0.03)


def test_the_share_is_three_forward_passes_against_the_peak(monkeypatch):
    sizes = bench_gpu.REHEARSAL
    monkeypatch.setattr(bench_gpu, "matmul_peak", lambda *_: 2e12)
    monkeypatch.setattr(bench_gpu, "time_step", lambda *_, **__: 0.5)
    monkeypatch.setattr(bench_gpu, "count_flops", lambda *_: 1e11)
    ((what, milliseconds, _, clips, beside),) = bench_gpu.matmul_share(sizes, CPU)
    assert "1.2 TFLOP/s" in what and milliseconds == "500.0" and clips == "4.0" and beside.startswith("60 % of")


def test_a_missing_peer_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match="transformers, which is not installed"):
        peers.build_transformers(bench_gpu.REHEARSAL)


def test_on_a_gpu_the_sizes_are_the_papers():
    assert bench_gpu.FULL.clip_shape == (3, 32, 224, 224) and bench_gpu.FULL.options["dim"] == 768
    assert bench_gpu.FULL.recipe == Recipe.preset("full") and bench_gpu.FULL.recipe.options["tubelet"] == (4, 4, 4)
    assert bench_gpu.FULL.volumes[0] == 971
