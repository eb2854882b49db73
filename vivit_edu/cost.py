"""What a model costs: parameters, FLOPs, time, peak memory; and the theory of attention.

A multiply-add counts as two FLOPs here, as in torch's counter. The paper's GFLOPs count it as one: halved,
our counts of ViViT-B/16x2 are 0.3 to 0.8 % below the paper's. That remainder has the size of what torch's
counter leaves out: it counts matrix products and convolutions, but no softmax, LayerNorm or GELU.
Chapter 09 uses all of this. The first count in a session takes seconds, in which torch loads its machinery.
"""

import time
import weakref
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .errors import ConfigError
from .models import VIVITS, model_class
from .support.wrapped import unwrapped

# ViViT-B/16x2 on clips (3, 32, 224, 224) in the paper: millions of parameters, and GFLOPs for one clip
PAPER = {name: model_class(name).paper for name in VIVITS if model_class(name).paper}


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns; those that are frozen do not count."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_flops(model: nn.Module, clip_shape: tuple[int, int, int, int], batch: int = 1) -> int:
    """FLOPs of one forward pass of clips [batch, *clip_shape]; a multiply-add counts as two.

    Nothing is computed: the pass runs on torch's meta device, where tensors have a shape and no values, so
    ViViT-B costs no more to count than a small model. A model that was built there, or that is
    compiled or wrapped, can be counted, too.
    clip_shape: (C, T, H, W). Stochastic depth and dropout are off.
    """
    model = unwrapped(model)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    clips = torch.empty(batch, *clip_shape, device="meta")
    was_training = model.training
    # The fused kernels do the products of the plain path, whose parts every version of the counter knows.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        functional_call(model.eval(), state, (clips,))
    model.train(was_training)
    return counter.get_total_flops()


def time_step(model: nn.Module, clips: torch.Tensor, *, backward: bool = True, repeats: int = 5) -> float:
    """Seconds of one pass over clips [B, C, T, H, W], the fastest of `repeats` after one to warm up.

    backward: also the backward pass, as in training. The minimum is what the machine can do when nothing else
    runs on it; a mean would measure the neighbours, too.
    """

    def step():
        with torch.set_grad_enabled(backward):
            logits = model(clips)
        if backward:
            logits.square().mean().backward()
            model.zero_grad()
        if clips.is_cuda:
            torch.cuda.synchronize(clips.device)

    step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(
    functions: dict[str, Callable[[], object]], device: torch.device, repeats: int = 15
) -> dict[str, list[float]]:
    """Times functions in turns, so that a busy moment of the machine slows all of them: {name: seconds of each repeat}.

    functions: {name: a function without arguments}. device: where they compute.
    """
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 2):  # two to warm up
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(function: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Bytes of tensors alive at the worst moment of function(), beyond those alive before.

    device: where function() computes. On a GPU torch keeps this figure itself, scratch space of its kernels
    included; on a CPU `AliveTensors` adds up what the operations return, which is the same in every run.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with AliveTensors() as tensors:
        function()
    return tensors.peak


class AliveTensors(TorchDispatchMode):
    """Within it, adds up what operations return, for as long as anything holds it, gradients too."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.known = set()  # ids of the storages seen; tensors that are views of each other share one

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for given in storages((args, kwargs)):  # was there before, or is counted already
            self.watch(given, 0)
        results = operation(*args, **(kwargs or {}))
        for made in storages(results):
            self.watch(made, made.nbytes())
        return results

    def watch(self, storage: torch.UntypedStorage, size: int) -> None:
        """Counts `size` bytes for this storage until it is freed, if it is new."""
        if id(storage) not in self.known:
            self.known.add(id(storage))
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self.forget, id(storage), size)

    def forget(self, key: int, size: int) -> None:
        """Takes the bytes of a freed storage off again."""
        self.known.discard(key)
        self.alive -= size


def storages(nested: object) -> list[torch.UntypedStorage]:
    """The memory behind each tensor in nested tuples, lists and dicts."""
    return [leaf.untyped_storage() for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def attention_pairs(name: str, n_t: int, n_s: int) -> int:
    """How many query-key pairs one layer compares for one clip, per head on average (section 3.3).

    name: one of Models 1 to 4; n_t: time indices, n_s = n_h·n_w: tokens at each. Model 2: one spatial layer,
    which runs at each of the n_t time indices, plus one temporal layer (the paper's O(n_s² + n_t²) leaves
    that n_t out). Model 4: half of the heads compare over space, the other half over time.
    In a head of width d a pair costs 4·d FLOPs (2·d in Q Kᵀ, 2·d in averaging the values), and one float of
    memory where the weights are kept. Raises ConfigError if the name is not that of a ViViT.
    """
    if name not in VIVITS:
        raise ConfigError(f"no attention is called {name!r}; take one of {', '.join(VIVITS)}")
    return model_class(name).pairs_per_head(n_t, n_s)
