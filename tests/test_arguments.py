"""Arguments of the public functions: accepted forms, and clear errors for others."""

import inspect
import warnings

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixelrnn_jax as prnn
from helpers.parameters import random_variables
from pixelrnn_jax import arguments
from pixelrnn_jax.configs.schema import KINDS
from pixelrnn_jax.inference import likelihood
from pixelrnn_jax.inference.receptive_field import receptive_field
from pixelrnn_jax.inference.sampling import value_logits

SHAPE, LEVELS = (2, 3, 1), 4
KEY = jax.random.key(0)
IMAGES = np.arange(12).reshape(2, *SHAPE).astype(np.uint8) % LEVELS
KNOWN = np.zeros(SHAPE[:2], bool)


def make(kind="pixel_cnn", **changes):
  sizes = dict(levels=LEVELS, hidden=3, layers=1, head_features=4, kernel_size=3,
               first_kernel_size=3)
  model = prnn.build_model(prnn.ModelConfig(kind, SHAPE, **(sizes | changes)))
  return model, random_variables(model, np.random.default_rng(0), 0.3)


# A call of each public function that takes a model and its variables.
FUNCTIONS = {
    "sample": lambda model, variables: prnn.sample(model, variables, KEY, num=2),
    "complete": lambda model, variables: prnn.complete(
        model, variables, KEY, IMAGES, KNOWN),
    "log_probs": lambda model, variables: prnn.log_probs(model, variables, IMAGES),
    "log_prob": lambda model, variables: prnn.log_prob(model, variables, IMAGES),
    "bits_per_dim": lambda model, variables: prnn.bits_per_dim(
        model, variables, IMAGES),
    "total_nats": lambda model, variables: likelihood.total_nats(
        model, variables, IMAGES),
    "value_logits": lambda model, variables: value_logits(model, variables, IMAGES),
    "receptive_field": lambda model, variables: receptive_field(
        model, variables, (1, 1), KEY, num=1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bound_models_and_frozen_variables_are_taken(name):
  model, variables = make()
  expected = FUNCTIONS[name](model, variables)
  for same in (model.bind(variables), model.clone(name="part")):
    np.testing.assert_array_equal(FUNCTIONS[name](same, variables), expected)
  frozen = flax.core.freeze(variables)
  np.testing.assert_array_equal(FUNCTIONS[name](model, frozen), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_variables_and_models_are_refused(name):
  function, (model, variables) = FUNCTIONS[name], make()
  params = variables["params"]
  _, wider = make(hidden=4)
  _, skipping = make(skip=True)
  _, several = make(kind="row_lstm")
  for wrong, message in [
      (params, r"give variables, not variables\['params'\]"),
      (flax.core.freeze(params), r"give variables, not variables\['params'\]"),
      ({}, "no entry 'params' but nothing"),
      ({"batch_stats": params}, r"no entry 'params' but 'batch_stats'.*model.init"),
      ((None, model, variables), "of the type tuple"),
      (None, "of the type NoneType"),
      (wider, r"first/bias is of shape \(8,\), and must be \(6,\)"),
      (skipping, "hold layers/skip/bias, which it has not|hold layers/skip/kernel"),
      (several, "lack layers/conv/bias"),
      ({"params": variables}, "lack first/bias"),
      ({"params": params | {"first": None}}, "lack first/bias"),
  ]:
    with pytest.raises(prnn.InputError, match=message):
      function(model, wrong)
  config = prnn.load_config("quickstart")
  for wrong, hint in [(config, "config.model"), (config.model, "build_model"),
                      (None, "NoneType")]:
    with pytest.raises(prnn.InputError, match=f"give the model.*{hint}|type {hint}"):
      function(wrong, variables)


def test_variables_of_several_scales():
  model, variables = make(multi_scale=(), hidden=3)
  scales = prnn.build_model(prnn.ModelConfig(
      "pixel_cnn", (4, 4, 1), LEVELS, hidden=3, layers=1, head_features=4,
      multi_scale=(2,)))
  with pytest.raises(prnn.InputError, match="lack scales_0/first/bias"):
    prnn.sample(scales, variables, KEY, num=1)


@pytest.mark.parametrize("number", [
    np.int64, np.uint8, np.array, jnp.int32, jnp.uint8, jnp.asarray])
def test_whole_numbers_of_numpy_and_jax(number):
  model, variables = make()
  expected = prnn.sample(model, variables, KEY, num=2, batch_size=1)
  np.testing.assert_array_equal(expected, prnn.sample(
      model, variables, KEY, num=number(2), batch_size=number(1)))
  np.testing.assert_array_equal(
      receptive_field(model, variables, (1, 2), KEY, num=2),
      receptive_field(model, variables, (number(1), number(2)), KEY, num=number(2)))


@pytest.mark.parametrize("number", [
    np.float32, np.float64, np.array, jnp.float32, jnp.bfloat16, jnp.asarray])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_real_numbers_of_numpy_and_jax(number):
  model, variables = make()
  np.testing.assert_array_equal(
      prnn.sample(model, variables, KEY, num=8, temperature=0.5),
      prnn.sample(model, variables, KEY, num=8, temperature=number(0.5)))
  np.testing.assert_array_equal(
      prnn.sample(model, variables, KEY, num=8, temperature=jnp.int32(2)),
      prnn.sample(model, variables, KEY, num=8, temperature=2))


@pytest.mark.parametrize("value", [
    2.0, 2.5, np.float32(2), jnp.float32(2), True, np.True_, jnp.array(True), "2",
    [2], np.array([2]), np.array([1, 2]), None, float("nan"), 0, -1, jnp.int32(0)])
def test_what_is_no_whole_number(value):
  model, variables = make()
  for name in ("num", "batch_size"):
    if name == "num" and value is None:
      continue  # None is the default of `num`
    with pytest.raises(prnn.InputError, match=f"{name}=.*a whole number, 1 or more"):
      prnn.sample(model, variables, KEY, **{name: value})
  with pytest.raises(prnn.InputError, match="batch_size=.*a whole number"):
    prnn.complete(model, variables, KEY, IMAGES, KNOWN, batch_size=value)
  with pytest.raises(prnn.InputError, match="num=.*a whole number, 1 or more"):
    receptive_field(model, variables, (0, 0), KEY, num=value)


@pytest.mark.parametrize("number", [2**31, 10**30, 10**5000], ids=lambda x: "")
def test_numbers_that_no_call_can_mean(number):
  model, variables = make()
  with pytest.raises(prnn.InputError, match="num=.*must be at most 2,147,483,647"):
    prnn.sample(model, variables, KEY, num=number)
  with pytest.raises(prnn.InputError, match="num=.*must be at most 2,147,483,647"):
    receptive_field(model, variables, (0, 0), KEY, num=number)


@pytest.mark.parametrize("wrong", [
    {"num": np.zeros((9, 9))}, {"temperature": np.zeros((99, 99))},
    {"temperature": 10**5000}, {"key": jax.random.split(KEY, 99)}])
def test_what_is_wrong_is_shown_in_one_short_line(wrong):
  model, variables = make()
  with pytest.raises(prnn.InputError) as error:
    prnn.sample(model, variables, **{"key": KEY, **wrong})
  assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_masks_of_rows_of_several_lengths():
  model, variables = make()
  with pytest.raises(prnn.InputError, match="The mask's rows are no array"):
    prnn.complete(model, variables, KEY, IMAGES, [[True], [True, False]])


# `build_model` without beartype, which is active in tests only.
BUILD_MODEL = inspect.unwrap(prnn.build_model)


@pytest.mark.parametrize("call, message", [
    (BUILD_MODEL, r"build_model\(config.model\)"),
    (lambda config: BUILD_MODEL(None), "of the type NoneType: give a ModelConfig"),
    (lambda config: prnn.load_config(None), "text, not of the type NoneType"),
    (lambda config: prnn.train(config.model, "run"), "ModelConfig: give a Config"),
    (lambda config: prnn.train(config, None), "workdir=None: must be a path"),
    (lambda config: prnn.train(config, "a\0b"), "is no path: it holds a NUL"),
])
def test_configurations_and_paths_of_other_types(call, message):
  with pytest.raises(prnn.InputError, match=message):
    call(prnn.load_config("quickstart:smoke"))


@pytest.mark.parametrize("pixel", [
    3, (1,), (1, 2, 3), None, (0.0, 1), (True, 1), ("0", "1"), (None, 0)])
def test_what_is_no_pixel(pixel):
  model, variables = make()
  with pytest.raises(prnn.InputError, match="pixel"):
    receptive_field(model, variables, pixel, KEY)


@pytest.mark.parametrize("value", [
    True, "1", [1.0], np.array([1.0]), None, 1j, 0.0, -1.0, float("inf"), 10**400,
    jnp.float32("nan"), np.True_])
def test_what_is_no_temperature(value):
  model, variables = make()
  with pytest.raises(prnn.InputError, match="temperature=.*positive"):
    prnn.sample(model, variables, KEY, temperature=value)


def test_sampling_inside_a_transformation_is_refused():
  model, variables = make()
  keys = jax.random.split(KEY, 2)
  for call in (
      lambda: jax.jit(lambda v: prnn.sample(model, v, KEY, num=1))(variables),
      lambda: jax.jit(lambda: prnn.sample(model, variables, KEY, num=1))(),
      lambda: jax.vmap(lambda k: prnn.sample(model, variables, k, num=1))(keys),
      lambda: jax.vmap(lambda t: prnn.sample(
          model, variables, KEY, num=1, temperature=t))(jnp.ones(2)),
      lambda: jax.jit(lambda n: prnn.sample(model, variables, KEY, num=n))(3),
      lambda: jax.grad(lambda t: prnn.sample(
          model, variables, KEY, num=1, temperature=t).sum() * 1.0)(1.0),
      lambda: jax.jit(lambda x: prnn.complete(
          model, variables, KEY, x, KNOWN))(IMAGES),
      lambda: jax.vmap(lambda m: prnn.complete(
          model, variables, KEY, IMAGES, m))(jnp.stack([KNOWN] * 2)),
  ):
    with pytest.raises(prnn.InputError, match="runs on the host.*Call it outside"):
      call()


def test_the_others_work_inside_transformations():
  model, variables = make("row_lstm")
  stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), variables)
  twice = jax.tree.map(lambda x: 2 * x, variables)
  for name in ("log_prob", "value_logits", "receptive_field"):
    function = FUNCTIONS[name]
    several = jax.jit(jax.vmap(lambda v, f=function: f(model, v)))(stacked)
    for got, params in zip(several, (variables, twice), strict=True):
      np.testing.assert_allclose(got, function(model, params), rtol=1e-4, atol=1e-5)
  with pytest.raises(prnn.InputError, match="num is traced.*static_argnames"):
    jax.jit(lambda n: receptive_field(model, variables, (0, 0), KEY, num=n))(1)


@pytest.mark.parametrize("name", ["sample", "complete", "value_logits"])
def test_what_goes_value_by_value_is_compiled_always(name):
  """Functions that go value by value are compiled even if jit is disabled.

  Without compilation, a sample of two pixels does not end in a minute.
  """
  model, variables = make("diagonal_bilstm")
  expected = FUNCTIONS[name](model, variables)
  with jax.disable_jit():
    np.testing.assert_array_equal(FUNCTIONS[name](model, variables), expected)


@pytest.mark.parametrize("name", ["log_prob", "receptive_field"])
def test_the_others_run_step_by_step_if_asked(name):
  model, variables = make("row_lstm")
  expected = FUNCTIONS[name](model, variables)
  with jax.disable_jit():
    np.testing.assert_allclose(
        FUNCTIONS[name](model, variables), expected, rtol=1e-4, atol=1e-5)


def test_a_program_is_compiled_once(caplog):
  """A second call with the same shapes compiles nothing."""
  model, variables = make("row_lstm", hidden=5)
  for name, function in FUNCTIONS.items():
    # `total_nats` is for use in a training step, which is compiled as a whole.
    if name == "total_nats":
      continue
    function(model, variables)
    with jax.log_compiles(), caplog.at_level("WARNING"):
      caplog.clear()
      function(model.clone(), variables)
      compiled = [r.getMessage() for r in caplog.records
                  if "Finished XLA compilation" in r.getMessage()]
    assert compiled == [], name
  with jax.log_compiles(), caplog.at_level("WARNING"):
    receptive_field(model, variables, (0, 2), KEY, num=2)  # two keys are another shape
  assert "Finished XLA compilation" in caplog.text  # JAX still logs this text


@pytest.mark.parametrize("kind", ["row_lstm", "diagonal_bilstm"])
def test_forward_mode_names_the_implementation(kind):
  model, variables = make(kind)
  tangent = jax.tree.map(jnp.ones_like, variables)
  for function in (
      lambda v: prnn.log_prob(model, v, IMAGES),
      lambda v: prnn.log_probs(model, v, IMAGES),
      lambda v: prnn.bits_per_dim(model, v, IMAGES),
      lambda v: likelihood.total_nats(model, v, IMAGES),
      lambda v: model.apply(v, IMAGES)):
    with pytest.raises(prnn.InputError, match="implementation='autodiff'"):
      jax.jvp(function, (variables,), (tangent,))
  with pytest.raises(prnn.InputError, match="implementation='autodiff'"):
    jax.jacfwd(lambda v: prnn.log_prob(model, v, IMAGES))(variables)
  # The advice of the message works: forward mode agrees with reverse mode.
  gradient = jax.grad(lambda v: prnn.log_prob(model, v, IMAGES).sum())(variables)
  reference, _ = make(kind, implementation="autodiff")
  _, forward = jax.jvp(
      lambda v: prnn.log_prob(reference, v, IMAGES).sum(), (variables,), (tangent,))
  expected = sum(x.sum() for x in jax.tree.leaves(gradient))
  np.testing.assert_allclose(forward, expected, rtol=1e-3, atol=1e-3)


def test_other_type_errors_pass():
  with pytest.raises(TypeError, match="another"), arguments.forward_mode_explained():
    raise TypeError("another")


@pytest.mark.parametrize("images, message", [
    (np.full((2, *SHAPE), LEVELS), r"from 4 to 4.*takes 0 to 3"),
    (np.full((2, *SHAPE), -1), "takes 0 to 3"),
    (jnp.full((2, *SHAPE), 200, jnp.uint8), "takes 0 to 3"),
    (np.full((2, *SHAPE), 3.5), "takes 0 to 3"),
    (np.full((2, *SHAPE), np.nan), "takes 0 to 3"),
    (np.zeros((2, *SHAPE), bool), "dtype bool: a network takes raw values"),
    (np.zeros((2, *SHAPE), complex), "dtype complex"),
    (np.full((2, *SHAPE), "0"), "dtype <U1"),
    (np.zeros((2, 3, 3, 1), np.uint8), r"takes \[B, H, W, C\] = \[B, 2, 3, 1\]"),
    ([[0, 1], [2]], "are no array"),
])
@pytest.mark.parametrize("scales", [False, True])
def test_apply_refuses_what_it_can_see(images, message, scales):
  model, variables = make()
  if scales:
    if np.shape(images[0]) == SHAPE:
      images = np.resize(images, (2, 2, 4, 1))
    message = message.replace("2, 3, 1", "2, 4, 1")
    model = prnn.build_model(prnn.ModelConfig(
        "pixel_cnn", (2, 4, 1), LEVELS, hidden=3, layers=1, head_features=4,
        multi_scale=(2,)))
    variables = random_variables(model, np.random.default_rng(0), 0.3)
  with pytest.raises(prnn.InputError, match=message):
    model.apply(variables, images)


def test_apply_warns_of_images_that_look_scaled():
  model, variables = make()
  scaled = np.random.default_rng(0).random((2, *SHAPE))
  with pytest.warns(UserWarning, match="takes raw values, 0 to 3"):
    model.apply(variables, scaled)
  binary, binary_variables = make(levels=2)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    model.apply(variables, 3 * scaled)  # real values are allowed for gradients
    jax.grad(lambda x: model.apply(variables, x).sum())(jnp.asarray(scaled))
    model.init(KEY, np.zeros((1, *SHAPE)))
    binary.apply(binary_variables, scaled)  # the full range of two levels


@pytest.mark.parametrize("name", ["log_probs", "value_logits", "complete"])
@pytest.mark.parametrize("images, message", [
    (IMAGES / 3, "dtype float64: raw integer values are needed, 0 to 3"),
    (IMAGES > 1, "dtype bool"), (np.full(IMAGES.shape, "0"), "dtype <U1"),
    (IMAGES.astype(np.int64) + 2**32, "takes 0 to 3"),
    (IMAGES[:0], "at least 1"), (IMAGES[0], r"takes \[B, H, W, C\]"),
    ([[1], [1, 2]], "are no array")])
def test_images_are_checked_alike(name, images, message):
  model, variables = make()
  call = {
      "log_probs": lambda: prnn.log_probs(model, variables, images),
      "value_logits": lambda: value_logits(model, variables, images),
      "complete": lambda: prnn.complete(model, variables, KEY, images, KNOWN)}[name]
  with pytest.raises(prnn.InputError, match=message):
    call()


@pytest.mark.parametrize("kind", KINDS)
def test_nested_lists_are_images(kind):
  model, variables = make(kind)
  np.testing.assert_array_equal(
      prnn.log_prob(model, variables, IMAGES.tolist()),
      prnn.log_prob(model, variables, IMAGES))


def test_restore(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _, model, variables = prnn.restore("mnist")
  arguments.check_variables(arguments.unbound(model), variables)
  with jax.disable_jit():
    _, _, again = prnn.restore("mnist")
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), variables, again))
  for wrong in (None, 3, b"mnist", ["mnist"], jnp.zeros(2)):
    with pytest.raises(prnn.InputError, match="workdir=.*must be a path"):
      prnn.restore(wrong)
  with pytest.raises(prnn.InputError, match="no work directory"):
    prnn.restore(tmp_path / "nowhere")
  for wrong in (None, 3, "newest"):
    with pytest.raises(prnn.InputError, match="checkpoint="):
      prnn.restore("mnist", wrong)
  with pytest.raises(prnn.InputError, match="restore runs on the host"):
    jax.jit(lambda: prnn.restore("mnist")[2])()
