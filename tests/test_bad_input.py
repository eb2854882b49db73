"""Whatever is given where an option or a clip belongs: the answer is a model that works, or one message of ours.

The inputs are drawn by hypothesis; the same ones every time, so that a failure can be looked at.
"""

import math
from contextlib import suppress
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.references import VIVITS
from vivit_edu import ConfigError, Recipe, build_model
from vivit_edu.augment import Augmentation
from vivit_edu.data import Split, Volumes
from vivit_edu.errors import TrainingError, VivitEduError
from vivit_edu.training import fit
from vivit_edu.vivit import ViViTConfig

SMALL = {"dim": 8, "depth": 1, "heads": 2, "mlp_dim": 8}
DRAWN = settings(max_examples=150, deadline=None, derandomize=True, database=None)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 40),
    st.floats(),
    st.text(max_size=5),
    st.just({}),
    st.just(b"7"),
    st.lists(st.integers(-1, 8), max_size=5),
    st.tuples(*[st.integers(-3, 9)] * 3),
    st.tuples(*[st.floats(0, 9)] * 3),
)
TINY_SPLIT = Split(
    torch.arange(2 * 7**3, dtype=torch.int64).reshape(2, 1, 7, 7, 7).to(torch.uint8), torch.tensor([0, 1])
)
TINY_VOLUMES = Volumes("tiny", ("dark", "bright"), *[TINY_SPLIT] * 3)  # one tubelet a clip
OPTIONS = [field.name for field in fields(ViViTConfig)]


@pytest.mark.parametrize("name", VIVITS)
@DRAWN
@given(option=st.sampled_from(OPTIONS), value=ANYTHING)
@example(option="tubelet", value=None)
@example(option="tubelet", value=10**9)
@example(option="dim", value=True)
@example(option="heads", value=float("nan"))
@example(option="clip_shape", value=(1, 28, 28, 28.0))
def test_an_option_builds_a_model_that_works_or_is_refused(name, option, value):
    try:
        model = build_model(name, **(SMALL | {option: value}))
    except ConfigError as error:
        assert str(error).strip()
        return
    shape = model.config.clip_shape
    if math.prod(shape) < 10**5:
        logits = model(torch.rand(2, *shape))
        assert logits.shape == (2, model.config.num_classes) and logits.isfinite().all()


@DRAWN
@given(name=ANYTHING, unknown=st.text(max_size=8))
def test_names_that_nothing_has(name, unknown):
    with pytest.raises(ConfigError, match="no model is called"):
        build_model(name)
    if unknown not in OPTIONS:
        with pytest.raises(ConfigError, match="has no option"):
            build_model("spacetime", **{unknown: 1})


MODELS = {
    name: build_model(name, clip_shape=(1, 4, 4, 4), tubelet=(2, 2, 2), num_classes=3, **SMALL).eval()
    for name in VIVITS
}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool)


@pytest.mark.parametrize("name", VIVITS)
@DRAWN
@given(
    shape=st.one_of(st.lists(st.integers(0, 6), max_size=6), st.just([2, 1, 4, 4, 4])),
    dtype=st.sampled_from(DTYPES),
    value=st.sampled_from([0.0, 1.0, -1.0, 255.0, math.nan, math.inf, -math.inf]),
)
@example(shape=[2, 1, 4, 4, 4], dtype=torch.float32, value=math.nan)
@example(shape=[2, 1, 4, 4, 4], dtype=torch.float64, value=0.0)
@example(shape=[0, 1, 4, 4, 4], dtype=torch.float32, value=0.0)
@example(shape=[2, 1, 0, 4, 4], dtype=torch.float32, value=0.0)
def test_clips_give_logits_or_are_refused(name, shape, dtype, value):
    clips = torch.full(shape, value).to(dtype)
    right = len(shape) == 5 and shape[1:] == [1, 4, 4, 4] and dtype == torch.float32
    right = right and (shape[0] == 0 or abs(value) <= 1)
    if not right:
        with pytest.raises(ConfigError):
            MODELS[name](clips)
        return
    logits = MODELS[name](clips)
    assert logits.shape == (shape[0], 3) and logits.isfinite().all()


def test_a_model_of_another_precision_takes_clips_of_its_own():
    model = build_model("spacetime", clip_shape=(1, 4, 4, 4), tubelet=(2, 2, 2), **SMALL).double()
    assert model(torch.rand(1, 1, 4, 4, 4, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(ConfigError, match=r"clips are torch.float32.*call clips.to\(torch.float64\)"):
        model(torch.rand(1, 1, 4, 4, 4))


@pytest.mark.parametrize("name", ["spacetime", "cnn3d"])
@pytest.mark.parametrize("clips", [np.zeros((1, 1, 28, 28, 28)), [[0.5]], None], ids=["array", "list", "None"])
def test_what_is_not_a_tensor_is_called_what_it_is(name, clips):
    with pytest.raises(
        ConfigError, match=rf"must be a tensor \[B, C, T, H, W\], got a {type(clips).__name__}: torch.as"
    ):
        build_model(name)(clips)


def test_what_is_said_of_grey_values_and_of_nan():
    with pytest.raises(ConfigError, match="run from 0 to 255: divide grey values by 255"):
        MODELS["spacetime"](torch.linspace(0, 255, 64).reshape(1, 1, 4, 4, 4))
    with pytest.raises(ConfigError, match="run from nan to nan: .*look for NaN"):
        MODELS["spacetime"](torch.full((1, 1, 4, 4, 4), math.nan))


@DRAWN
@given(field=st.sampled_from([field.name for field in fields(Augmentation)]), value=ANYTHING)
@example(field="mirror", value=1)
@example(field="rand_layers", value=0.5)
@example(field="shift", value="0.1")
@example(field="noise", value=math.nan)
def test_an_augmentation_is_made_of_numbers_in_range_or_refused(field, value):
    try:
        Augmentation(**{field: value})
    except VivitEduError as error:
        assert field in str(error)
        return
    assert isinstance(value, bool) if field in ("mirror", "film") else 0 <= value < math.inf


@DRAWN
@given(field=st.sampled_from([field.name for field in fields(Recipe)]), value=ANYTHING)
@example(field="lr", value="0.001")
@example(field="lr", value=math.inf)
@example(field="lr", value=1e30)
@example(field="epochs", value=2.0)
@example(field="batch_size", value=True)
@example(field="weight_decay", value=-0.1)
@example(field="clip_norm", value=0)
@example(field="compile", value=1)
@example(field="model", value="vit")
@example(field="options", value={"depth": 0})
@example(field="options", value={"heads": 3})
@example(field="options", value={"tubelet": 7})
@example(field="options", value={7: 7})
@example(field="augmentation", value={"noise": 0.1})
@example(field="pretrained", value=b"weights.pt")
def test_a_recipe_is_refused_where_it_is_written_not_in_training(field, value):
    try:
        recipe = Recipe(**{field: value})
    except ConfigError as error:
        assert str(error).strip()
        return
    kind = type(getattr(Recipe(), field))
    assert type(value) is kind or (kind is float and isinstance(value, int))
    assert Recipe.from_dict(asdict(recipe)) == recipe
    model, short = recipe.build(TINY_VOLUMES), replace(recipe, epochs=1, batch_size=2, compile=False)
    with suppress(TrainingError):  # a number, but one that no loss survives
        fit(model, TINY_VOLUMES, short, progress=False)


@DRAWN
@given(
    values=st.one_of(
        ANYTHING, st.dictionaries(st.sampled_from([*(f.name for f in fields(Recipe)), "nonsense"]), ANYTHING)
    )
)
@example(values={"augmentation": {"shift": 2.0}})
@example(values={"augmentation": {"nonsense": 1}})
@example(values={"augmentation": None})
@example(values={"epochs": None})
def test_a_recipe_that_was_kept_is_whole_or_refused(values):
    try:
        assert isinstance(Recipe.from_dict(values), Recipe)
    except ConfigError as error:
        assert str(error).strip()


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, None, "0", True])
def test_a_seed_is_a_whole_number_that_torch_takes(seed):
    with pytest.raises(ConfigError, match="^seed must be"):
        fit(MODELS["spacetime"], TINY_VOLUMES, Recipe(), seed=seed)
