"""The framework of the exercises: messages name the mistake, predictions are scored."""

import json
import random

import numpy as np
import pytest
import torch
from einops import rearrange

from tests.exercises.cases import run_cases
from vivit_edu.course import checks, journal
from vivit_edu.course.checks import (
    CheckFailed,
    call,
    calling,
    close,
    comparing,
    exercise,
    flag,
    learns,
    number,
    pair,
    passed,
    predict,
    progress,
    reveal,
    same_shape,
)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A new working directory and a new process, as far as the journal can tell."""
    monkeypatch.chdir(tmp_path)
    for events in (journal._guesses, journal._passed, journal._passed_by, journal._came_true, journal._borrowed):
        events.clear()


def message(function, *args, **kwargs):
    with pytest.raises(CheckFailed) as failed:
        function(*args, **kwargs)
    return str(failed.value)


# ---- call


def test_call_gives_what_the_function_gives():
    assert call(lambda a, b: a - b, 5, b=2) == 3


def test_an_error_is_told_in_two_lines_with_the_readers_own_line_and_the_call():
    def mixed_up(x):
        y = x.transpose(0, 1)
        return rearrange(y, "h w -> h w d")  # raised inside einops, caused here

    text = message(call, mixed_up, torch.ones(2, 3))
    line = mixed_up.__code__.co_firstlineno + 2
    first, second = text.split("\n")
    assert first.startswith("your code raised EinopsError: ")
    assert f"(line {line} of your code: `return rearrange(y" in first
    assert second == "It was called with x [2, 3]."
    assert message(call, lambda: 1 / 0).endswith("\nIt was called without arguments.")


@pytest.mark.parametrize(
    "wrong, told",
    [
        (lambda x: x @ torch.ones(7, 2), True),
        (lambda x: x.view(28, -1), True),
        (lambda x: x[28], True),
        (lambda x: x.split([5, 5], dim=1), True),
        (lambda x: x + torch.ones(8), True),
        (lambda x: rearrange(x, "h (w p) -> h w p", p=28), True),
        (lambda x: rearrange(x, "h w -> (h w)", w=28), True),
        (lambda x: rearrange(x, "h (w p) -> h w p", p=2), True),
        (lambda x: x @ x, False),
        (lambda x: x.flatten() + x, False),
        (lambda x: x[3], False),  # one too far
        (lambda x: x.mean(dim=7), False),
        (lambda x: x[torch.ones(3, dtype=torch.bool)], False),
        (lambda x: x[torch.arange(2), torch.arange(3)], False),
        (lambda x: x.numpy()[np.arange(2), np.arange(3)], False),
        (lambda x: (1, 2)[x.long()], False),
        (lambda x: rearrange(x, "h w d -> h (w d)"), False),
        (lambda x: rearrange(x, "h (w p) -> h w p"), False),
        (lambda x: x.nonsense, False),
        (lambda x: x.tolist().shape, False),
    ],
)
def test_a_remark_about_sizes_goes_with_errors_that_name_a_size_of_nothing_given(wrong, told):
    assert message(call, wrong, torch.ones(2, 3)).endswith("take sizes from the arguments.") == told


def test_an_assert_in_the_readers_code_is_called_one():
    def asserts(x):
        assert (x > 2).all()

    text = message(call, asserts, torch.ones(2, 3))
    assert text.startswith("an assert in your code failed: ") and "(where True or False is asked for" in text


def test_an_error_in_a_module_is_found_behind_torchs_frames():
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.nonsense

    line = Broken.forward.__code__.co_firstlineno + 1
    assert f"(line {line} of your code: `return x.nonsense`" in message(call, Broken(), torch.ones(2))


def test_of_the_learners_own_functions_the_innermost_is_named():
    def helper(x):
        return x[5]

    def outer(x):
        return helper(x)

    line = helper.__code__.co_firstlineno + 1
    assert f"(line {line} of your code: `return x[5]`" in message(call, outer, [1])


def test_an_error_below_the_packages_own_functions_points_at_the_learners_call():
    from vivit_edu.attention import attend

    text = message(call, lambda q: attend(q, q[..., :2], q, record=[]), torch.ones(1, 1, 3, 4))
    assert "of your code: `text = message(call, lambda q" in text


def test_wrong_arguments_and_an_empty_solution_are_told_as_such():
    assert "positional argument" in message(call, lambda: 0, 1) and "line" not in message(call, lambda: 0, 1)

    def empty(x):
        raise NotImplementedError()

    assert message(call, empty, 1).startswith("empty is still to be written")


def test_an_operation_that_torch_does_not_have_for_a_type_is_the_learners_mistake():
    text = message(call, lambda clips: clips.mean(dim=0), torch.ones(2, 3, dtype=torch.uint8))
    assert "your code raised" in text and "floating point" in text


def test_a_failed_check_inside_is_passed_on_as_it_is():
    def inner():
        raise CheckFailed("swapped")

    assert message(call, inner) == "swapped"


def test_a_changed_argument_is_named():
    def in_place(first, second):
        second += 1
        return second

    text = message(call, in_place, torch.ones(2), torch.ones(3))
    assert text.startswith("your function changes the second that it was given: make new tensors")
    assert torch.equal(call(in_place, torch.ones(2), torch.ones(3), may_change=(1,)), torch.full((3,), 2.0))


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda parts: parts[1].zero_(), "make new tensors"),
        (lambda parts: parts.reverse(), "make new tensors"),
        (lambda parts: parts.append(1), "it holds 3 parts now, and held 2"),
    ],
)
def test_changes_inside_a_list_are_seen(change, text):
    assert text in message(call, change, [torch.ones(2), torch.ones(2) * 2])
    assert call(lambda parts: len(parts), [torch.ones(2), 3]) == 2


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda module: module.eval(), "left in another mode"),
        (lambda module: module[1].eval(), "left in another mode"),
        (lambda module: module.requires_grad_(False), "requires_grad of its parameters"),
        (lambda module: torch.nn.init.zeros_(module[0].weight), "its weights have changed"),
        (lambda module: module(torch.ones(2, 3)), "its weights have changed"),  # BatchNorm's means
    ],
)
def test_changes_of_a_module_are_seen(change, text):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    assert text in message(call, change, module)
    call(change, module, may_change=(0,))


def test_gradients_left_off_are_named_and_switched_on_again():
    assert "gradients switched off" in message(call, lambda: torch.set_grad_enabled(False))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "seed", [lambda: torch.manual_seed(0), lambda: np.random.seed(0), lambda: random.seed(0), lambda: torch.seed()]
)
def test_a_global_seed_is_named_and_not_set(seed):
    before = torch.initial_seed(), torch.get_rng_state()
    assert "sets the global seed" in message(call, seed)
    assert before[0] == torch.initial_seed() and torch.equal(before[1], torch.get_rng_state())
    call(lambda: torch.Generator().manual_seed(0))  # one's own generator may have one


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), lambda: np.random.rand(), random.random])
def test_a_draw_from_any_global_generator_is_seen_where_one_is_given(draw):
    text = message(call, lambda generator: draw(), torch.Generator())
    assert text.startswith("your function draws from the global generator")
    call(draw)


def draw_of_all():
    return torch.rand(3).tolist(), np.random.rand(), random.random()


def test_a_check_draws_the_same_each_time_and_the_programs_own_draws_go_on_as_if_without_it(monkeypatch):
    """Also where it refuses the answer, or another check runs inside it."""
    drawn, inner = [], []

    @exercise
    def check_inner():
        inner.append(draw_of_all())

    @exercise
    def check_lucky(function):
        drawn.append(draw_of_all())
        check_inner()
        drawn[-1] += (draw_of_all(),)
        if (found := call(function)) > 0.5:
            raise CheckFailed(f"{found}")
        passed("00.1", "it was small")

    verdicts = set()
    for own in range(20):
        torch.manual_seed(own), np.random.seed(own), random.seed(own)
        initial, expected = torch.initial_seed(), draw_of_all()
        torch.manual_seed(own), np.random.seed(own), random.seed(own)
        try:
            verdicts.add(check_lucky(lambda: torch.rand(1).item()))
        except CheckFailed as failed:
            verdicts.add(str(failed))
        assert (torch.initial_seed(), draw_of_all()) == (initial, expected)
    assert len(verdicts) == 1 and all(one == drawn[0] for one in drawn) and all(one == inner[0] for one in inner)
    assert inner[0] != drawn[0][:3], "each check has numbers of its own"
    monkeypatch.setattr(calling, "DRAW", 1)
    check_inner()
    assert inner[-1] != inner[0]


def test_what_can_be_changed_without_harm():
    generator = torch.Generator().manual_seed(0)
    call(lambda generator, text, size: torch.rand(2, generator=generator), generator, "a", (2, 3))


def test_the_call_is_described():
    def wrong(z, heads, layers, block, model, labels, name):
        raise ValueError("no")

    layers = [torch.ones(2, 3)] * 2
    text = message(
        call, wrong, torch.ones(2, 3), 4, layers, torch.nn.ReLU(), len, torch.tensor([1, 2]), "a" * 50
    ).splitlines()[1]
    assert text.startswith("It was called with z [2, 3], heads 4, layers a list of 2 ([2, 3], …), block ReLU, model, ")
    assert "labels int64 [2], name 'aaa" in text and "…" in text


# ---- gradients


def test_learns_is_content_where_all_gradients_flow():
    linear = torch.nn.Linear(3, 2)
    learns(lambda z, module: module(z), torch.ones(4, 3), linear)
    learns(lambda z: linear(z), torch.ones(4, 3), also=linear.parameters())
    learns(lambda z, labels: (z * 2, z + 1), torch.ones(4, 3), torch.tensor([1]))
    assert linear.weight.grad is None


def scaled_in_place(z):
    y = z.exp()
    y *= 2
    return y


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda z, w: z.detach() * w, "no gradient reaches z"),
        (lambda z, w: z * w.data, "no gradient reaches w"),
        (lambda z, w: z * 0 + w, "no gradient reaches z"),
        (torch.no_grad()(lambda z, w: z * w), "no gradient reaches the arguments"),
        (lambda z, w: torch.tensor((z * w).tolist()), "no gradient reaches the arguments"),
        (lambda z, w: scaled_in_place(z) * w, "changed in place"),
    ],
)
def test_learns_names_what_is_cut_off(function, text):
    assert text in message(learns, function, torch.ones(2, 3), torch.nn.Parameter(torch.ones(2, 3)))


# ---- what the check cannot use


def test_an_error_of_the_check_itself_is_told_with_what_was_returned():
    @exercise
    def check_it(function):
        call(function, torch.ones(2, 3)).transpose(0, 5)

    text = message(check_it, lambda z: [1, 2])
    assert text.startswith("your function returned [1, 2], which the check cannot use (AttributeError: 'list' object")
    assert text.endswith("\nIt was called with z [2, 3].")
    assert message(check_it, lambda z: z.nonsense).startswith("your code raised AttributeError")


NUMBERS = [3, 3.0, np.float32(3), np.int64(3), np.array(3), np.array([3.0]), torch.tensor(3), torch.tensor([3.0])]


@pytest.mark.parametrize("found", NUMBERS, ids=repr)
def test_numbers_of_all_kinds(found):
    assert number(found, "N") == 3
    close(found, 3)
    close(found, torch.tensor(3.0))


@pytest.mark.parametrize(
    "found, text",
    [
        (None, "N is None: does your function end in `return ...`?"),
        (np.array([1, 2]), "N is 2 numbers, expected one: multiply"),
        ((1, 2, 3), "N is 3 numbers, expected one: multiply"),
        (torch.ones(4), "N is 4 numbers, expected one: multiply"),
        ("3", "N is a str, expected one number: multiply"),
        ({}, "N is a dict, expected one number: multiply"),
        (True, "N is a bool, expected one number: multiply"),
        (torch.ones, "N is a builtin_function_or_method, expected one number: multiply"),
    ],
)
def test_what_is_not_a_number(found, text):
    assert message(number, found, "N", ": multiply") == text


@pytest.mark.parametrize("found", [True, np.bool_(True), torch.tensor(True), np.array([True])], ids=repr)
def test_flags_of_all_kinds(found):
    assert flag(found, "the answer") is True


@pytest.mark.parametrize(
    "what, said",
    [
        ("the result", "the result is"),
        ("the logits of clip 0", "the logits of clip 0 are"),
        ("a weight after two steps", "a weight after two steps is"),
        ("the loss", "the loss is"),
        ("layer 0 of my_layers", "layer 0 of my_layers is"),
        ("my_layers", "my_layers is"),
    ],
)
def test_a_verb_fits_its_noun(what, said):
    assert comparing.does(what) == said


@pytest.mark.parametrize("found, text", [(None, "got None"), (1, "got an int"), (torch.ones(2), "got a Tensor")])
def test_what_is_not_a_flag(found, text):
    assert text in message(flag, found, "the answer")


def test_pairs():
    x, y = torch.ones(2), torch.zeros(2)
    for both in ((x, y), [x, y], torch.stack((x, y))):
        first, second = pair(both, "x, y")
        assert torch.equal(first, x) and torch.equal(second, y)
    assert message(pair, (x,), "x, y") == "expected two things, `return x, y`; your function returned 1 parts"
    assert message(pair, (x,), "the loss, its sum").startswith("expected two things: the loss, its sum; your function")
    assert "returned None" in message(pair, None, "x, y") and "returned a dict" in message(pair, {}, "x, y")


def test_jupyter_shows_the_message_alone():
    assert CheckFailed("axes were swapped")._render_traceback_() == ["CheckFailed: axes were swapped"]
    assert CheckFailed("raised\ncalled")._render_traceback_() == ["CheckFailed: raised", "called"]


# ---- shapes and values


@pytest.mark.parametrize(
    "found, text",
    [
        (None, "the tokens are None: does your function end in `return ...`?"),
        ([1, 2], "the tokens are a list, expected a tensor of shape [2, 3]"),
        (torch.ones(3, 2), "the tokens have shape [3, 2], expected [2, 3]: the right axes in another order"),
        (torch.ones(1, 6), "the tokens have shape [1, 6], expected [2, 3]: the right number of values"),
        (torch.ones(1, 2, 3), "the tokens have shape [1, 2, 3], expected [2, 3]: 3 axes instead of 2"),
        (torch.ones(2, 4), "the tokens have shape [2, 4], expected [2, 3]"),
    ],
)
def test_wrong_shapes(found, text):
    assert message(same_shape, found, (2, 3), "the tokens").startswith(text)
    assert message(close, found, torch.ones(2, 3), what="the tokens").startswith(text)


def test_right_shapes_and_values_pass():
    x = torch.rand(2, 3, requires_grad=True)
    same_shape(x, (2, 3))
    same_shape(x, torch.ones(2, 3))
    close(x, x.detach() + 1e-7)
    close(3, 3.0)
    close(torch.tensor([1, 2]), torch.tensor([1.0, 2.0]))
    close(torch.zeros(2), torch.zeros(2))


def test_a_mistakes_value_is_named_and_others_are_not():
    x = torch.arange(6.0).reshape(2, 3)
    mistakes = {"it was doubled": 2 * x, "it was halved": lambda: x / 2, "the rows were swapped": x.flip(0)}
    assert message(close, 2 * x, x, mistakes) == "it was doubled"
    assert message(close, x / 2, x, mistakes) == "it was halved"
    text = message(close, x + 1, x, mistakes, "the sum")
    assert text == "the sum is wrong in 6 of 6 values, first at [0, 0]: found 1, expected 0"
    close(x, x, mistakes)


def test_a_wrong_shape_comes_first_and_names_its_mistake():
    x = torch.arange(6.0).reshape(2, 3)
    text = message(close, x.T, x, {"rows and columns were swapped": x.T})
    assert text == (
        "the result has shape [3, 2], expected [2, 3]: the right axes in another order; rows and columns were swapped"
    )


def test_one_small_difference_is_found_and_placed():
    x = torch.full((4, 5), 100.0)
    y = x.clone()
    y[2, 3] += 0.1
    text = message(close, y, x)
    assert text == "the result is wrong in 1 of 20 values, first at [2, 3]: found 100.1, expected 100"
    assert message(close, 3, 4, what="the count") == "the count is wrong: found 3, expected 4"


def test_the_tolerance_is_a_share_of_the_largest_value():
    close(torch.tensor([1e4, 0.0]), torch.tensor([1e4, 0.01]))
    assert "wrong in 1 of 2" in message(close, torch.tensor([1e-7, 0.0]), torch.tensor([1e-7, 1e-9]))
    close(torch.tensor([1.0, 2.1]), torch.tensor([1.0, 2.0]), tolerance=0.1)


def test_what_is_not_a_number_is_never_right():
    nan = torch.tensor([float("nan"), 1.0])
    assert "found nan" in message(close, nan, torch.ones(2))
    assert "found nan" in message(close, nan, torch.zeros(2), {"never": nan})


# ---- run_cases, tried on a small check


def check_double(function):
    x = torch.arange(3.0)
    close(call(function, x), 2 * x, {"squared instead of doubled": x**2, "not changed at all": x})
    passed("99.1", "doubled")


def plus(x):
    return x + x


def times(x):
    return 2 * x


def by_roots(x):
    return (4 * x**2).sqrt()


test_run_cases = run_cases(
    check_double,
    right=[plus, times, by_roots],
    wrong={
        "squared": (lambda x: x**2, "squared instead"),
        "unchanged": (lambda x: x, "not changed"),
        "no return": (lambda x: None, "return"),
        "an axis too many": (lambda x: 2 * x[None], "2 axes instead of 1"),
        "negative": (lambda x: -2 * x, "first at"),
        "halved": (lambda x: x / 2, "first at"),
        "one more": (lambda x: 2 * x + 1, "first at"),
        "the sum": (lambda x: 2 * x.sum(), "0 axes instead of 1"),
        "a list": (lambda x: [2 * v for v in x.tolist()], "is a list"),
        "in place": (lambda x: x.mul_(2), "changes the x"),
    },
)


# ---- predictions and progress


@pytest.mark.parametrize(
    "guess, truth, verdict",
    [
        (64, 64, "64 tokens. Your guess was right."),
        (60, 64, "64 tokens. Your guess, 60, was near enough."),
        (57, 64, "64 tokens. Your guess, 57, was 11% too small."),
        (343, 64, "64 tokens. Your guess, 343, was 5.36 times too large."),
        (8, 64, "64 tokens. Your guess, 8, was 8 times too small."),
        (-64, 64, "64 tokens. Your guess, -64, was another number."),
        (0, 64, "64 tokens. Your guess, 0, was another number."),
        (1, 0, "0 tokens. Your guess, 1, was another number."),
        ([2, 64], torch.Size([2, 64]), "(2, 64) tokens. Your guess was right."),
        ((64, 2), [2, 64], "(2, 64) tokens. You guessed (64, 2)."),
        ("Model 3", "Model 2", "Model 2 tokens. You guessed Model 3."),
        (torch.tensor([2, 64]), (2, 64), "(2, 64) tokens. Your guess was right."),
        (True, False, "False tokens. You guessed True."),
        (1030301, torch.tensor(1030301), "1,030,301 tokens. Your guess was right."),
        (0.3, 1 / 3, "0.3333 tokens. Your guess, 0.3, was near enough."),
        ("64", 64, "64 tokens. Your guess was right."),
        ("60 tokens", 64, "64 tokens. Your guess, 60, was near enough."),
        ("1,030,301", 1030301, "1,030,301 tokens. Your guess was right."),
        ("many", 64, "64 tokens. You guessed many."),
        ("inf", 0, "0 tokens. You guessed inf."),
        ("64", "65", "65 tokens. You guessed 64."),
    ],
)
def test_predictions_are_scored(guess, truth, verdict, capsys):
    predict("03.tokens", "How many?", guess, unit="tokens")
    reveal("03.tokens", truth)
    assert capsys.readouterr().out.splitlines()[-1] == f"03.tokens: {verdict}"
    progress(3)
    right = int("right" in verdict or "near" in verdict)
    assert capsys.readouterr().out.endswith(f"came true: {right} of 1.\n")


@pytest.mark.parametrize("guess, chosen", [("about 10", True), (1, True), ("about", False), ("ten", False)])
def test_the_beginning_of_a_choice_is_enough(guess, chosen, capsys):
    predict("08.x", "How many?", guess, choices=["about 10 %, like guessing", "about 40 %", "1"])
    said = capsys.readouterr().out
    assert "Choose from: about 10 %, like guessing | about 40 % | 1." in said
    assert ("is not among the choices" not in said) == chosen


def test_predict_prints_the_question_and_the_choices(capsys):
    predict("06.model", "Which one?", "Model 5", choices=["Model 1", "Model 2"])
    assert capsys.readouterr().out.splitlines() == [
        "Prediction 06.model: Which one?",
        "  Choose from: Model 1, Model 2.",
        "  Model 5 is not among the choices.",
    ]
    reveal("06.model", "Model 2")
    assert capsys.readouterr().out == "06.model: Model 2.\n"
    reveal("06.never_asked", 3)
    assert capsys.readouterr().out == "06.never_asked: 3.\n"
    progress(6)
    assert "predictions" not in capsys.readouterr().out, "only guesses are counted"


def test_a_question_without_a_guess_asks_for_one(capsys):
    predict("06.model", "Which one?", choices=["Model 1", "Model 2"])
    assert capsys.readouterr().out.splitlines()[2] == (
        "  What is your guess? Write it as the last argument, guess=..., or on paper, before you run on."
    )


def test_tolerance(capsys):
    predict("09.time", "How long?", 1.5, unit="s")
    reveal("09.time", 1.0, tolerance=0.5)
    assert "near enough" in capsys.readouterr().out


def test_progress_counts_this_run_and_this_chapter_only(capsys):
    journal.PROGRESS_FILE.parent.mkdir()
    journal.PROGRESS_FILE.write_text(json.dumps({"passed": {"03.2": True}, "predictions": {"03.x": True}}))
    progress("03")
    assert capsys.readouterr().out == ("Chapter 03: exercises passed: none yet.\n")
    passed("03.1", "tokens and voxels agree")
    passed("03.1", "once more")
    passed("04.1", "another chapter's")
    predict("03.a", "?", 1)
    reveal("03.a", 2)
    predict("04.a", "?", 1)
    reveal("04.a", 2)
    capsys.readouterr()
    progress(3)
    assert capsys.readouterr().out == ("Chapter 03: exercises passed: 03.1; predictions that came true: 0 of 1.\n")
    assert json.loads(journal.PROGRESS_FILE.read_text()) == {
        "passed": {"03.2": True, "03.1": True, "04.1": True},
        "predictions": {"03.x": True, "03.a": False, "04.a": False},
    }


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"passed": 1, "predictions": 2}'])
def test_a_damaged_progress_file_is_begun_anew(content):
    journal.PROGRESS_FILE.parent.mkdir()
    journal.PROGRESS_FILE.write_text(content)
    passed("03.1", "fine")
    assert json.loads(journal.PROGRESS_FILE.read_text()) == {"passed": {"03.1": True}, "predictions": {}}


def test_a_folder_that_cannot_be_written_to_stops_nothing(capsys, tmp_path):
    (tmp_path / ".vivit_edu").write_text("a file where the folder should be")
    passed("03.1", "fine")
    progress(3)
    assert "exercises passed: 03.1" in capsys.readouterr().out


def test_the_names_that_notebooks_take_from_checks():
    assert {"CheckFailed", "passed", "predict", "reveal", "progress"} <= set(dir(checks))
