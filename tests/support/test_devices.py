"""One place decides device and precision: each branch with stand-ins for hardware that is not here."""

from pathlib import Path

import pytest
import torch

from vivit_edu import best_device
from vivit_edu.errors import ConfigError
from vivit_edu.support import devices


def pretend(monkeypatch, *, cuda=0, mps=False, bfloat16=True):
    """A machine with so many GPUs; bfloat16: they have instructions for it, and do not merely emulate it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bfloat16
    )
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    "cuda, mps, best", [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (2, True, "cuda")]
)
def test_the_best_device_is_a_gpu_where_there_is_one(monkeypatch, cuda, mps, best):
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert best_device() == devices.choose_device("auto") == torch.device(best)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "hpu", "xpu", "meta", "nonsense", "", "cpu:1", 3, None])
def test_a_device_that_is_not_here_is_refused_in_one_line(monkeypatch, name):
    pretend(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        devices.choose_device(name)
    assert str(caught.value) == f"device {str(name)!r} is not available here: choose auto, or one of cpu"


def test_the_message_names_the_devices_that_are_here(monkeypatch):
    pretend(monkeypatch, cuda=2, mps=True)
    for name in ("cuda:2", "xpu"):
        with pytest.raises(ConfigError, match="choose auto, or one of cuda:0, cuda:1, mps, cpu$"):
            devices.choose_device(name)


def test_a_device_that_is_here_is_taken(monkeypatch):
    assert devices.choose_device("cpu") == devices.choose_device(torch.device("cpu")) == torch.device("cpu")
    assert devices.choose_device("cpu:0").type == "cpu"
    pretend(monkeypatch, cuda=2)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.empty(1))
    assert devices.choose_device("cuda:1") == torch.device("cuda:1")


def test_a_device_that_does_not_work_is_told(monkeypatch):
    pretend(monkeypatch, mps=True)

    def fail(*_, **__):
        raise RuntimeError("no kernel image\nmore of it")

    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(ConfigError, match=r"'mps' is here, but does not work \(no kernel image\): choose cpu"):
        devices.choose_device("mps")


@pytest.mark.parametrize(
    "kind, bfloat16, asked, expected",
    [
        ("cuda", True, False, torch.bfloat16),  # Ampere and later
        ("cuda", False, False, torch.float16),  # a T4, which only emulates bfloat16
        ("cuda", False, True, torch.float16),
        ("mps", True, False, torch.float32),
        ("mps", True, True, torch.float32),
        ("cpu", True, False, torch.float32),
        ("cpu", False, True, torch.bfloat16),
        ("xpu", True, True, torch.float32),
    ],
)
def test_precision(monkeypatch, kind, bfloat16, asked, expected):
    pretend(monkeypatch, cuda=kind == "cuda", mps=kind == "mps", bfloat16=bfloat16)
    device = torch.device(kind)
    assert devices.precision(device, asked) == expected
    assert devices.grad_scaler(device, on_cpu=asked).is_enabled() == (expected == torch.float16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_are_computed_in_that_precision(monkeypatch, dtype):
    monkeypatch.setattr(devices, "precision", lambda *_: dtype)
    with devices.mixed_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    "text, expected",
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("processor: 0\nflags : fpu amx_tile amx_bf16 amx_int8\n", True),
        ("flags : fpu avx512f avx512_vnni amx_tile amx_int8\n", False),  # AMX for whole numbers alone
        ("model name : avx512_bf16\nflags : fpu sse\n", False),
        ("", False),
        (None, False),
    ],
)
def test_cpu_instructions_for_bfloat16(monkeypatch, tmp_path, text, expected):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    if text is not None:
        Path(devices.CPU_INFO).write_text(text)
    assert devices.cpu_has_bfloat16() is expected


def test_machines_are_described(monkeypatch):
    assert devices.describe_device(torch.device("cpu")) == f"cpu, {torch.get_num_threads()} threads"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA T4")
    monkeypatch.setattr(devices, "processes", lambda: 2)
    assert devices.describe_device(torch.device("cuda")) == "2 × NVIDIA T4"
