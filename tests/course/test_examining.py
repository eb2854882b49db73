"""`examine` sees what a single comparison does not: other sizes, other types, gradients, and what else has changed."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.course.test_checks import message
from vivit_edu.course.checks import call, drawn, draws, examine, learns


def weights(q, k):
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)


CASES = (drawn(2, 3, 5), drawn(2, 4, 5, seed=1)), (drawn(1, 1, 7), drawn(1, 2, 7, seed=1))
MISTAKES = {
    "√d is missing": lambda q, k: (q @ k.transpose(-2, -1)).softmax(dim=-1),
    "queries and keys are exchanged": lambda q, k: weights(k, q),
}


def looked_at(function):
    return message(examine, function, weights, *CASES, mistakes=MISTAKES, what="the weights")


def by_einsum(q, k):
    return torch.einsum("bmd,bnd->bmn", q, k).mul(q.shape[-1] ** -0.5).softmax(-1)


def by_loops(q, k):
    return torch.stack([torch.stack([(row @ y.T / len(row) ** 0.5).softmax(0) for row in x]) for x, y in zip(q, k)])


@pytest.mark.parametrize("function", [weights, by_einsum, by_loops])
def test_right_answers_pass(function):
    examine(function, weights, *CASES, mistakes=MISTAKES)


def scaled_in_place(q, k):
    q /= q.shape[-1] ** 0.5
    return (q @ k.transpose(-2, -1)).softmax(dim=-1)


def for_two_clips(q, k):
    return torch.stack([weights(q[0], k[0]), weights(q[1], k[1])])


def first_clip_alone_learns(q, k):
    return torch.cat((weights(q[:1], k[:1]), weights(q[1:].detach(), k[1:])))


def in_float32(q, k):
    return weights(q.float(), k.float())


def through_numpy(q, k):
    return torch.tensor(weights(q, k).tolist())


@pytest.mark.parametrize(
    "function, text",
    [
        (MISTAKES["√d is missing"], "√d is missing\nIt was called with q [2, 3, 5], k [2, 4, 5]."),
        (MISTAKES["queries and keys are exchanged"], "another order; queries and keys are exchanged\nIt was"),
        (lambda q, k: weights(q, k) * 2, "the weights are wrong in 24 of 24 values"),
        (lambda q, k: weights(q, k) if len(q) > 1 else weights(q, k)[0], "With other sizes it was right"),
        (lambda q, k: (q @ k.mT / int(q.shape[-1] ** 0.5)).softmax(-1), "wrong in 24 of 24"),
        (for_two_clips, "your code raised IndexError"),
        (scaled_in_place, "changes the q that it was given"),
        (torch.no_grad()(weights), "no gradient reaches the arguments"),
        (lambda q, k: weights(q, k.detach()), "no gradient reaches k"),
        (first_clip_alone_learns, "the gradient of q is not: a part of the way was cut off"),
        (in_float32, "with tensors of float64: the weights are float32, expected float64"),
        (through_numpy, "no gradient reaches"),
        (lambda q, k: weights(q, k).double(), "the weights are float64, expected float32"),
        (lambda q, k: None, "the weights are None: does your function end in `return ...`?"),
        (lambda q, k: (weights(q, k),), "the weights are a tuple, expected a tensor of shape [2, 3, 4]"),
    ],
)
def test_wrong_answers_are_seen_through(function, text):
    assert text in looked_at(function)


def test_an_argument_changed_before_use_does_not_change_what_is_expected():
    def shifted(x):
        x += 1
        return 2 * x

    text = message(examine, shifted, lambda x: 2 * x, (drawn(2, 3),))
    assert "changes the x that it was given" in text


def test_modules_are_copied_and_their_gradients_compared():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def run(module, x):
        return module.second(module.first(x))

    def frozen(module, x):
        with torch.no_grad():
            z = module.first(x)
        return module.second(z + 0 * x)

    module = Half()
    examine(run, run, (module, drawn(2, 3)))
    assert module.first.weight.grad is None
    assert "no gradient reaches" in message(examine, frozen, run, (module, drawn(2, 3)))


def test_several_results_are_compared_one_by_one():
    def both(x):
        return x + 1, x * 2

    case = (drawn(3, 2),)
    for function in (both, lambda x: [x + 1, x * 2], lambda x: torch.stack((x + 1, x * 2))):
        examine(function, both, case, what="sum, double")
    mistakes = {"they are exchanged": lambda x: (x * 2, x + 1)}
    assert "they are exchanged" in message(
        examine, lambda x: (x * 2, x + 1), both, case, what="sum, double", mistakes=mistakes
    )
    assert "double is wrong in" in message(examine, lambda x: (x + 1, x), both, case, what="sum, double")
    text = message(examine, lambda x: x + 1, both, case, what="sum, double")
    assert text.startswith("expected 2 things, `return sum, double`; your function returned a Tensor")


@pytest.mark.parametrize("kind", [float, np.float32, np.array, torch.tensor, lambda x: np.array([x])])
def test_numbers_of_all_kinds_are_taken(kind):
    examine(lambda a, b: kind(a / b), lambda a, b: a / b, (3, 4), (5, 2))
    examine(lambda a, b: [kind(a), kind(b)], lambda a, b: (a, b), (3, 4))


def test_whole_lists_as_arrays_and_flags_of_all_kinds():
    examine(lambda a: np.arange(a), lambda a: list(range(a)), (3,), (5,))
    for kind in (bool, np.bool_, torch.tensor):
        examine(lambda a: kind(a > 2), lambda a: a > 2, (3,), (1,))
    mistakes = {"the wrong way round": lambda a: a <= 2}
    text = message(examine, lambda a: a <= 2, lambda a: a > 2, (3,), mistakes=mistakes)
    assert text == "the wrong way round\nIt was called with a 3."
    assert "expected True" in message(examine, lambda a: False, lambda a: a > 2, (3,))


def test_an_error_can_have_a_hint():
    text = message(
        examine, lambda x: x + torch.ones(7), lambda x: x, (drawn(2, 3),), errors={"must match": "expand it"}
    )
    first, second = text.split("\n")
    assert first.endswith("; expand it") and second.startswith("It was called with x [2, 3].")


def test_a_wrong_value_can_have_a_hint():
    text = message(examine, lambda x: x * torch.nan, lambda x: x, (drawn(2),), nan="a mean of nothing")
    assert text.endswith("found nan, expected 1.541; a mean of nothing\nIt was called with x [2].")


def test_the_arguments_of_a_module_have_the_readers_names():
    class AddOne(nn.Module):
        def forward(self, tokens):
            return tokens.add_(1)

    assert "changes the tokens that" in message(examine, AddOne(), lambda x: x + 1, (drawn(2, 3),))


def test_an_argument_called_a_is_not_taken_for_an_article():
    assert "changes the argument `a` that" in message(examine, lambda a: a.add_(1), lambda a: a + 1, (drawn(2, 3),))


def test_draws_wants_the_same_for_a_seed_and_something_else_for_another():
    def arguments(generator):
        return 5, generator

    found = draws(lambda n, generator: torch.randperm(n, generator=generator), arguments, what="order")
    assert len(found) == 20 and len({tuple(order.tolist()) for order in found}) > 10
    fixed = torch.Generator().manual_seed(0)

    def its_own(n, generator):
        return torch.randperm(n, generator=fixed)

    assert "the same seed gives another order" in message(draws, its_own, arguments, what="order")
    assert "every seed gives the same order" in message(
        draws, lambda n, generator: torch.arange(n), arguments, what="order"
    )
    text = message(draws, lambda n, generator: torch.randperm(n), arguments)
    assert text.startswith("your function draws from the global generator")


def test_a_module_that_the_reader_wrote_is_looked_at_like_a_function():
    class Shifts(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.ones(3))

        def forward(self, x):
            with torch.no_grad():
                self.shift += 1
            return x + self.shift

    assert "your module changes itself when it is called" in message(call, Shifts(), drawn(2, 3))

    class Cut(Shifts):
        def forward(self, x):
            return x + self.shift.data

    assert "no gradient reaches its shift" in message(learns, Cut(), drawn(2, 3))


@pytest.mark.parametrize(
    "change, argument, text",
    [
        (lambda x: x.requires_grad_(), torch.ones(2), "its requires_grad has changed"),
        (lambda x: x.update(a=torch.zeros(2)), {"a": torch.ones(2)}, "make new tensors"),
        (lambda x: x.pop("a"), {"a": torch.ones(2)}, "it holds other keys now"),
        (lambda x: x.fill(3), np.ones(2), "make a new array"),
    ],
)
def test_other_changes_are_seen(change, argument, text):
    assert text in message(call, change, argument)


def test_a_changed_default_dtype_is_named_and_set_back():
    assert "default dtype" in message(call, lambda: torch.set_default_dtype(torch.float64))
    assert torch.get_default_dtype() == torch.float32


def test_leaving_python_is_an_error_like_others():
    assert "your code raised SystemExit" in message(call, lambda: exit())
