import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from pixelrnn_jax.configs import CONFIGS, load_config, schema
from pixelrnn_jax.configs.fields import changed_fields
from pixelrnn_jax.configs.json_text import from_json, to_json
from pixelrnn_jax.errors import InputError

CONTRACT = [
    f"{kind}_{data}"
    for kind in ("pixel_cnn", "row_lstm", "diagonal_bilstm")
    for data in ("mnist", "cifar10", "imagenet32", "imagenet64")
] + ["diagonal_bilstm_mnist_1layer", "quickstart", "multi_scale_mnist",
     "multi_scale_imagenet64"] + [
    f"row_lstm_cifar10_{variant}"
    for variant in ("depth1", "depth2", "depth3", "depth6", "depth9", "depth12",
                    "plain", "skip", "residual", "both")
]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_name_loads_and_survives_json(name):
  for full_name in (name, f"{name}:smoke"):
    config = load_config(full_name)
    assert config.name == full_name
    assert from_json(to_json(config)) == config


def test_the_names_of_the_contract_exist():
  assert set(CONTRACT) <= set(CONFIGS)


def test_configs_are_the_papers():
  config = load_config("row_lstm_imagenet64")
  assert (config.model.hidden, config.model.layers) == (512, 4)
  assert not config.model.residual and not config.model.skip
  assert config.train.batch_size == 32
  config = load_config("diagonal_bilstm_mnist")
  assert (config.model.hidden, config.model.layers) == (16, 7)
  assert config.model.levels == 2 and config.model.head_features == 32
  model = load_config("multi_scale_imagenet64").model
  assert model.multi_scale == (2,)
  assert model == dataclasses.replace(
      load_config("row_lstm_imagenet64").model, multi_scale=(2,))
  assert load_config("multi_scale_mnist").model.scale_shapes() == (
      (7, 7, 1), (28, 28, 1))
  for name, residual, skip in (
      ("plain", False, False), ("skip", False, True),
      ("residual", True, False), ("both", True, True)):
    model = load_config(f"row_lstm_cifar10_{name}").model
    assert (model.residual, model.skip) == (residual, skip)
    assert (model.layers, model.hidden) == (12, 128)


def test_smoke_keeps_the_kind_and_uses_packaged_data():
  for name in CONFIGS:
    full, smoke = load_config(name), load_config(f"{name}:smoke")
    assert smoke.model.kind == full.model.kind
    assert smoke.model.levels == full.model.levels
    assert smoke.model.multi_scale == full.model.multi_scale
    assert smoke.data.source in ("packaged_mnist", "coloured_mnist")


@pytest.mark.parametrize("name, message", [
    ("row_lstm_mnits", "Did you mean row_lstm_mnist"),
    ("", "no config named ''"),
    ("quickstart:smok", "use quickstart:smoke"),
])
def test_unknown_names(name, message):
  with pytest.raises(InputError, match=message):
    load_config(name)


@pytest.mark.parametrize("field, value, message", [
    ("model.kind", "pixelcnn", "must be one of pixel_cnn, row_lstm"),
    ("model.image_shape", (28, 28), "wrong type"),
    ("model.image_shape", (0, 28, 1), "at least 1"),
    ("model.image_shape", (28, 28, 2), "1 .grey. or 3"),
    ("model.levels", 1, "from 2"),
    ("model.levels", 257, "from 2"),
    ("model.levels", 256, "packaged_mnist"),
    ("model.hidden", 0, "fewer features"),
    ("model.hidden", "16", "wrong type"),
    ("model.hidden", True, "wrong type"),
    ("model.head_features", 0, "fewer features"),
    ("model.layers", 0, "at least 1"),
    ("model.unroll", -1, "0 or more"),
    ("model.images_per_strip", -1, "0 or more"),
    ("model.implementation", "magic", "fused, autodiff"),
    ("model.implementation", "pallas", "a multiple of 128 hidden units"),
    ("model.kernel_size", 4, "must be odd"),
    ("model.first_kernel_size", -1, "must be odd"),
    ("model.dtype", "float16", "must be one of"),
    ("model.multi_scale", (1,), "whole numbers of at least 2"),
    ("model.multi_scale", (-2, 2), "whole numbers of at least 2"),
    ("model.multi_scale", (2.0,), r"must be \(int, ...\)"),
    ("model.multi_scale", 4, r"must be \(int, ...\)"),
    ("model.multi_scale", (3,), "must be multiples of 3"),
    ("model.multi_scale", (4, 2), "must be multiples of 8"),
    ("train.scale", 1, "scales are 0 to 0; -1 trains all"),
    ("data.source", "mnist", "tfds:NAME"),
    ("data.source", "coloured_mnist", "3 channels"),
    ("data.binarization", "none", "static"),
    ("data.validation_images", 0, "at least"),
    ("data.workers", -1, "0 or more"),
    ("optimizer.learning_rate", 0.0, "positive"),
    ("optimizer.learning_rate", float("nan"), "positive"),
    ("optimizer.decay", 1.0, r"\[0, 1\)"),
    ("optimizer.clip_norm", -1.0, "0 or more"),
    ("optimizer.decay_steps", 50, "larger than"),
    ("train.batch_size", 0, "at least 1"),
    ("train.batch_size", 16.0, "wrong type"),
    ("train.seed", -1, "0 or more"),
])
def test_wrong_values(field, value, message):
  config = load_config("row_lstm_mnist")
  part, name = field.split(".")
  setattr(getattr(config, part), name, value)
  with pytest.raises(InputError, match=message):
    config.validate()


def test_scales():
  config = load_config("multi_scale_mnist")
  config.model.multi_scale = (2, 7)
  config.train.scale = 2
  config.validate()
  assert config.model.scale_shapes() == ((2, 2, 1), (4, 4, 1), (28, 28, 1))
  assert from_json(to_json(config)) == config
  for scale in (-2, 3):
    config.train.scale = scale
    with pytest.raises(InputError, match=r"0 \(the coarsest\) to 2"):
      config.validate()


def test_an_integer_is_a_float_but_not_the_reverse():
  config = load_config("row_lstm_mnist")
  config.optimizer.clip_norm = 1
  config.validate()


@pytest.mark.parametrize("change, message", [
    (lambda tree: tree["model"].pop("kind"), "lacks the field 'kind'"),
    (lambda tree: tree["model"].update(nn=1), "no field 'nn'"),
    (lambda tree: tree.update(train=3), "must be an object"),
    (lambda tree: tree["train"].update(steps="3"), "wrong type"),
])
def test_wrong_json(change, message):
  tree = json.loads(to_json(load_config("row_lstm_mnist")))
  change(tree)
  with pytest.raises(InputError, match=message):
    from_json(json.dumps(tree))


def test_truncated_json():
  text = to_json(load_config("row_lstm_mnist"))
  with pytest.raises(InputError, match="not valid JSON"):
    from_json(text[:100])


def test_changed_fields():
  old, new = load_config("row_lstm_mnist"), load_config("row_lstm_mnist")
  new.train = dataclasses.replace(new.train, log_every=7, seed=3)
  assert changed_fields(old, new, lambda field: True) == [
      "train.seed: 0 became 3", "train.log_every: 50 became 7"]
  fixed = lambda field: not field.metadata.get("resumable")  # noqa: E731
  assert changed_fields(old, new, fixed) == ["train.seed: 0 became 3"]


def test_every_part_is_validated():
  parts = {field.name for field in dataclasses.fields(schema.Config)}
  assert parts == {"name", "model", "data", "optimizer", "train"}


@pytest.mark.parametrize("number", [np.int64, np.uint8, np.array, jnp.int32, jnp.array])
def test_numbers_of_numpy_and_jax(number):
  """A config takes the numbers and arrays of NumPy and JAX.

  A caller may have them from the shape and the values of their images.
  """
  config, same = load_config("multi_scale_mnist"), load_config("multi_scale_mnist")
  config.model.image_shape = number([28, 28, 1]) if number in (
      np.array, jnp.array) else tuple(map(number, (28, 28, 1)))
  config.model.multi_scale = [number(4)]
  config.model.levels = number(2)
  config.train.steps, same.train.steps = number(100), 100
  config.optimizer.learning_rate = np.float64(same.optimizer.learning_rate)
  config.model.residual = np.bool_(same.model.residual)
  config.validate()
  assert config == same and to_json(config) == to_json(same)
  assert hash(config.model) == hash(same.model)


@pytest.mark.parametrize("part, field, value, message", [
    ("model", "levels", np.float32(2), "levels=2.0 is of the wrong type"),
    ("model", "image_shape", np.ones((1, 3)), "image_shape=.* of the wrong type"),
    ("train", "steps", jnp.float32(5), "steps=5.0 is of the wrong type"),
    ("data", "workers", 10**6, "workers=1000000: must be at most 1,024"),
    ("train", "samples", 10**6, "samples=1000000: must be at most 4,096"),
])
def test_values_that_no_run_can_have(part, field, value, message):
  config = load_config("quickstart")
  setattr(getattr(config, part), field, value)
  with pytest.raises(InputError, match=message):
    config.validate()


def test_a_name_is_one_line_of_letters():
  """A name of several lines, or with control characters, is refused.

  Programs print the name, and control characters can move a terminal's cursor.
  """
  config = load_config("quickstart")
  config.name = "my vögel, 2"
  config.validate()
  for name in ("a\nb", "\x1b[2J", "a\0"):
    config.name = name
    with pytest.raises(InputError, match="must be one line of letters"):
      config.validate()
