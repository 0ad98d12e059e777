"""A run, from its configuration to its evaluation.

What a step computes follows from the config alone: parameters from the seed,
batches from the data iterator, whose position is in the checkpoint, and keys by
`fold_in(key(seed), step)`. So a run that was killed and started again ends where
an undisturbed one does.
"""

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from pixelrnn_jax import data, files, progress
from pixelrnn_jax.configs.schema import Config, changed_fields, to_json
from pixelrnn_jax.errors import Diverged, InputError, Interrupted, out_of_memory
from pixelrnn_jax.inference.likelihood import (
  bound_note,
  nats_to_bits_per_dim,
  scale_name,
)
from pixelrnn_jax.inference.sampling import sample
from pixelrnn_jax.models import build_model
from pixelrnn_jax.runs import layout
from pixelrnn_jax.runs.checkpoint import Checkpoints, Info
from pixelrnn_jax.runs.metrics import MetricsWriter
from pixelrnn_jax.runs.optimizer import (
  check_schedule,
  decay_end,
  make_optimizer,
  make_schedule,
)
from pixelrnn_jax.runs.restore import read_config
from pixelrnn_jax.runs.state import (
  init_state,
  trained_scales,
  updates_taken,
)
from pixelrnn_jax.training import parallel
from pixelrnn_jax.training.evaluation import (
  Evaluation,
  evaluate,
  read_evaluation,
  report,
)
from pixelrnn_jax.training.signals import StopSignals
from pixelrnn_jax.visualization.grids import save_grid


def train(
    config: Config, workdir: str, on_metrics: Callable[[dict], None] | None = None
) -> None:
  """Trains, evaluates on the whole test split and draws samples.

  Picks up where the work directory left off. It leaves there `config.json`,
  `metrics.jsonl` and TensorBoard events, `checkpoints/`, `evaluation.json` and,
  for each validation, `samples/step_STEP.png`.

  Args:
    config: the experiment.
    workdir: made if it is not there. If it holds a run, that run's config must
      be this one, but for more `train.steps`, another `train.scale` and the fields
      that alter no parameter. The run goes on from where it is; scales that were
      trained one after another are one model.
    on_metrics: called with each line of `metrics.jsonl` once it is written, on
      process 0: between steps, outside of the time that images/s are of. What it
      raises ends the run.

  Raises:
    InputError: the config, the devices, the data or the work directory do not
      fit each other, or another training is at work there, in which case nothing
      was written; or the disk is full or broken, a process that reads data was
      killed, or the loss is no longer finite.
    Interrupted: by SIGTERM or SIGINT; a checkpoint was saved.
  """
  workdir = files.expand(workdir)
  with parallel.together():
    config.validate()
    parallel.check_batch_size(config.train)
    check_schedule(config)
    check_workdir(config, workdir)
    sources = {
        split: data.load_source(config, split)
        for split in ("train", "validation", "test")
    }
    data.check_enough(config, sources["train"])
  # A signal is remembered from here on, before processes that read data start: they
  # would lose it, or die of it while they are still importing.
  with _alone_in(workdir), StopSignals() as signals:
    with parallel.together():
      check_workdir(config, workdir)  # another run may have been here meanwhile
      run = _Run(config, workdir, sources, signals, on_metrics)
    try:
      run.train_all()
    except Exception as error:
      reason = files.disk_fault(error)
      if not reason or error is run.callback_error or isinstance(error, InputError):
        raise
      raise InputError(
          f"The run in --workdir={workdir} could not read or write after step"
          f" {run.step}: {reason}; the same command then goes on from the newest"
          " checkpoint."
      ) from error
    finally:
      run.iterator.close()


@contextlib.contextmanager
def _alone_in(workdir: str) -> Iterator[None]:
  """A context that one training of this machine at a time is in.

  With several processes the first one stands for all.
  """
  with contextlib.ExitStack() as stack:
    with parallel.together():
      if jax.process_index() == 0:
        try:
          os.makedirs(workdir, exist_ok=True)
          stack.enter_context(
              files.hold_lock(os.path.join(workdir, layout.LOCK), wait=False))
        except files.LockHeld as held:
          raise InputError(
              f"--workdir={workdir} is in use by another training ({held}). Wait for"
              " it, stop it, or use another --workdir."
          ) from held
        except OSError as error:
          raise InputError(
              f"--workdir={workdir} cannot be used:"
              f" {files.describe(error) or error}. Mend that, or use another"
              " --workdir."
          ) from error
    yield


def check_workdir(config: Config, workdir: str) -> None:
  """Raises InputError unless a run of this config can use the directory."""
  if part := files.unwritable_part(workdir):
    raise InputError(
        f"--workdir={workdir}: {part!r} is not a directory that can be written"
        " to. Use another --workdir."
    )
  if not os.path.exists(os.path.join(workdir, layout.CONFIG)):
    for name in (layout.CHECKPOINTS, layout.METRICS, layout.EVALUATION):
      if os.path.exists(os.path.join(workdir, name)):
        raise InputError(
            f"--workdir={workdir} holds {name} but no {layout.CONFIG}, so nobody"
            " can tell what was trained there. Use another --workdir."
        )
    return
  old = read_config(workdir)
  if old.data.source.startswith("folder:") and config.data.source.startswith("folder:"):
    old.data.source = config.data.source  # its pixels count: see `compare`
  if old.train.steps < config.train.steps:
    old.train.steps = config.train.steps
  changes = changed_fields(old, config, lambda f: not f.metadata.get("resumable"))
  if changes:
    raise InputError(
        f"--workdir={workdir} belongs to another config: {'; '.join(changes)}."
        " Use another --workdir for this config, or the old values to go on."
        " train.steps may grow, and train.scale and fields that alter no parameter may"
        " change."
    )


class _Run:
  """A run in progress."""

  def __init__(
      self, config: Config, workdir: str, sources: dict, signals: StopSignals,
      on_metrics: Callable[[dict], None] | None = None,
  ):
    self.config, self.workdir, self.sources = config, workdir, sources
    self.signals, self.on_metrics = signals, on_metrics
    self.model = build_model(config.model)
    self.optimizer = make_optimizer(config.optimizer, config.train.steps)
    self.train_step = parallel.make_train_step(
        self.model, self.optimizer, config.train.accumulate, config.train.scale)
    self.eval_step = parallel.make_eval_step(self.model)
    self.iterator = data.train_iterator(
        config, sources["train"], jax.process_index(), jax.process_count())
    self.key = jax.random.key(config.train.seed)
    self.step = 0
    self.damaged = None
    self.validate_first = False
    self.callback_error = None

  def say(self, message: str) -> None:
    """Prints on process 0, above a progress bar."""
    if jax.process_index() == 0:
      progress.say(message)

  def describe(self, source) -> str:
    """What a figure is of: the data, and the bound if it is one."""
    return "; ".join(filter(None, [source.description, bound_note(self.config.model)]))

  def due(self, every: int) -> bool:
    """Whether something that is done `every` steps and at the end is due."""
    return self.step % every == 0 or self.step == self.config.train.steps

  @out_of_memory(
      "Less is taken by --config.train.accumulate=2 or more, which takes a batch in"
      " parts, --config.model.rematerialize=True, --config.model.dtype=bfloat16, or a"
      " smaller --config.train.batch_size.")
  def train_all(self) -> None:
    """All that is still to be done."""
    with parallel.together():
      self.restore()
    self.write_config()
    if self.step < self.config.train.steps or self.validate_first:
      self.train()
    else:
      self.say(
          f"{self.workdir} is complete: {self.step} steps. More train.steps would go"
          " on.")
    self.finish()

  def restore(self) -> None:
    """Takes up the newest good checkpoint, or draws the parameters."""

    def init(key):
      return init_state(
          self.model, self.optimizer, key, self.config.model.image_shape)

    with Checkpoints(self.workdir) as checkpoints:
      if not checkpoints.steps():
        self.state = parallel.replicate(
            jax.jit(init)(jax.random.fold_in(self.key, 0)))
        return
      restored = checkpoints.restore(
          jax.eval_shape(init, self.key), self.iterator)
    self.state = parallel.replicate(restored.state)
    self.step = int(restored.state.step)
    self.damaged = restored
    # A validation that a signal cut short is made up for.
    self.validate_first = (
        restored.info.validation_nats is None
        and self.due(self.config.train.eval_every)
    )
    self.say(f"Resuming {self.workdir} at step {self.step}.")
    self.compare(restored.info)
    self.compare_schedules()

  def compare_schedules(self) -> None:
    """Say so where the learning rate is no longer that of the run so far."""
    old = read_config(self.workdir)
    rates = [
        float(make_schedule(c.optimizer, c.train.steps)(self.step))
        for c in (old, self.config)]
    if self.config.train.scale < 0 and rates[0] != rates[1]:
      end = decay_end(self.config.optimizer, self.config.train.steps)
      then = f"and its decay ends at step {end}" if end else "where it stays"
      self.say(
          f"The schedule has changed: at step {self.step} the learning rate goes from"
          f" {rates[0]:.2g} to {rates[1]:.2g}, {then}. The steps before were taken"
          " with the old schedule, so this is not the run that began with the new one.")

  def compare(self, info: Info) -> None:
    """Says where this process differs from that of the checkpoint.

    Raises:
      InputError: the data has changed.
    """
    now = self.sources["train"].description
    if info.data and data.without_path(info.data) != data.without_path(now):
      raise InputError(
          f"--workdir={self.workdir} was trained on {info.data}, and now data.source"
          f" is {now}. Put that data back, or use another --workdir."
      )
    differences = [
        f"{what}: {before} became {after}" for what, before, after in (
            ("devices", info.devices, jax.device_count()),
            ("train.accumulate", info.accumulate, self.config.train.accumulate),
            ("device", info.device_kind, jax.devices()[0].device_kind),
            ("JAX", info.jax, jax.__version__),
        ) if before not in ("", after)
    ]
    differences += [
        f"{name}: {before or 'unset'} became {after or 'unset'}"
        for name, after in parallel.settings().items()
        if (before := info.settings.get(name, after)) != after]
    if differences:
      self.say(
          f"Not as before: {'; '.join(differences)}. Figures will agree with those of"
          " an undisturbed run up to rounding, not bit for bit."
      )

  def write_config(self) -> None:
    """Writes the config: from here on the directory belongs to this run."""
    if jax.process_index() == 0:
      path = os.path.join(self.workdir, layout.CONFIG)
      if files.read_text(path) != to_json(self.config):
        files.write_text(path, to_json(self.config))

  def train(self) -> None:
    """Steps until the end, with validations and checkpoints on the way."""
    config, source = self.config, self.sources["train"]
    parameters = sum(x.size for x in jax.tree.leaves(self.state.params))
    self.say(
        f"{config.name}: {parameters:,} parameters, {jax.device_count()}"
        f" {jax.devices()[0].platform} device(s), {len(source):,} training images"
        f" ({source.description})"
    )
    for note in source.notes:
      self.say(f"note: {note}")
    if config.train.scale >= 0 and config.model.multi_scale:
      name = scale_name(config.model, config.train.scale)
      self.say(f"Training the {name} scale alone (train.scale); figures of a"
               " validation are of all scales.")
    bar = progress.bar(
        "training", config.train.steps, "steps", initial=self.step, leave=True,
        disable=jax.process_index() > 0)
    with (
        Checkpoints(self.workdir, write=True) as self.checkpoints,
        MetricsWriter(
            self.workdir, self.step, self.call_back, not self.validate_first,
        ) as self.metrics,
        bar as self.bar,
    ):
      self.stop_if_asked()  # before the first step is compiled
      if self.damaged:
        self.checkpoints.set_aside(self.damaged)
      if self.validate_first:
        if validation := self.validate():
          self.checkpoints.set_validation(self.step, validation.nats_per_image)
        self.stop_if_asked()
      self.take_steps()
      self.stop_if_asked()
    # A signal may have come while the files were closed. The next one acts at once.
    self.signals.release()
    self.stop_if_asked()

  def call_back(self, line: dict) -> None:
    """Hands a line of metrics to the caller of `train`."""
    if self.on_metrics:
      try:
        self.on_metrics(line)
      except Exception as error:
        self.callback_error = error
        raise

  def stop_if_asked(self) -> None:
    """Raises Interrupted if a signal has come, to any process, since the last save."""
    if self.any_process(self.signals.received):
      name = signal.Signals(self.signals.received).name
      where = (
          f"after step {self.step}, whose checkpoint is saved. The same command goes on"
          " from there." if self.step
          else "before the first step. The same command starts anew.")
      raise Interrupted(f"{name}: stopped {where}", self.signals.received)

  def take_steps(self) -> None:
    """The loop itself."""
    settings = self.config.train
    window = _Window(self.config, self.updates_missed())
    while self.step < settings.steps:
      images = parallel.shard(self.next_batch())
      self.state, metrics = self.train_step(self.state, images)
      self.step += 1
      window.append(metrics)
      self.bar.update()

      stop = self.stop_asked()
      validating = self.due(settings.eval_every) and not stop
      saving = self.due(settings.checkpoint_every) or stop
      if not (validating or saving or self.due(settings.log_every)):
        continue
      values = window.close(self.step)
      self.metrics.write(self.step, values, self.describe(self.sources["train"]))
      self.bar.set_postfix_str(_summary(self.config, values), refresh=False)
      validation = self.validate() if validating else None
      stop = stop or (validating and validation is None)
      if saving or stop or self.is_best(validation):
        self.save(validation)
      if stop:
        self.stop_if_asked()
      window.open()

  def next_batch(self) -> np.ndarray:
    """The next images.

    Raises:
      InputError: a process that reads them was killed. A single process has saved a
        checkpoint then.
    """
    try:
      return next(self.iterator)
    except RuntimeError as error:
      if not data.lost_worker(error):
        raise
      # Several processes could only save together.
      if jax.process_count() == 1 and self.step:
        if self.step not in self.checkpoints.steps():
          self.save(None)
        where = f"step {self.step}, whose checkpoint is saved"
      else:
        where = "the newest checkpoint"
      raise InputError(
          f"After step {self.step} one of the {self.config.data.workers} processes"
          " that read data (data.workers) was killed; where memory is short, the"
          f" system does that. The same command goes on from {where}. If it happens"
          " again, free memory or use another --workdir with fewer data.workers."
      ) from error

  def updates_missed(self) -> dict[str, int]:
    """Steps in which the trained scales were not trained, by the metrics' suffix."""
    model = self.config.model
    if not model.multi_scale:
      return {"": 0}
    opt_states = [
        self.state.opt_state[name] for name in self.model.parameter_names]
    return {
        f"_{scale_name(model, s)}": self.step - updates_taken(opt_states[s])
        for s in trained_scales(model, self.config.train.scale)}

  def stop_asked(self) -> bool:
    """Whether a signal has come, to any process.

    Several processes have to agree, which they do once every `log_every` steps.
    """
    if jax.process_count() > 1 and not self.due(self.config.train.log_every):
      return False
    return bool(self.any_process(self.signals.received))

  def any_process(self, received: int) -> int:
    """The signal that this process or another has received, or 0; all ask together."""
    if jax.process_count() > 1:
      gathered = multihost_utils.process_allgather(np.array(received))
      self.signals.received = received = int(gathered.max())
    return received

  def validate(self) -> Evaluation | None:
    """Evaluates on the validation split; None if a signal came meanwhile."""
    source = self.sources["validation"]
    try:
      evaluation = evaluate(
          self.eval_step, self.state.params, source, self.config,
          stop=lambda: jax.process_count() == 1 and bool(self.signals.received),
          label="validating",
      )
    except InputError as error:
      raise type(error)(f"Validation at step {self.step}: {error}") from error
    if evaluation is None:
      return None
    figures = {"": evaluation} | {
        f"_{size}": of_scale for size, of_scale in evaluation.scales.items()}
    self.metrics.write(self.step, {
        f"validation/{name}{suffix}": getattr(figure, name)
        for suffix, figure in figures.items()
        for name in ("nats_per_image", "nats_standard_error", "bits_per_dim")
        if getattr(figure, name) is not None
    }, self.describe(source))
    self.say(
        f"step {self.step}: validation {evaluation} over {evaluation.over()}"
        f" ({source.description})"
    )
    self.draw_samples()
    return evaluation

  def draw_samples(self) -> None:
    """Writes the grid of this step, unless it is there.

    It follows from the parameters, the seed and the step: drawn again after a
    restart, it is the same. Before the step's checkpoint is saved, so that a run
    that is killed meanwhile makes up for it.
    """
    config = self.config
    folder = os.path.join(self.workdir, layout.SAMPLES)
    path = os.path.join(folder, f"step_{self.step:08d}.png")
    if not config.train.samples or jax.process_index() > 0 or os.path.exists(path):
      return
    images = sample(
        self.model, {"params": jax.device_get(self.state.params)},
        jax.random.fold_in(self.key, self.step), config.train.samples)
    os.makedirs(folder, exist_ok=True)
    save_grid(images, path, config.model.levels)
    self.say(f"step {self.step}: {config.train.samples} samples, {path}")

  def is_best(self, validation: Evaluation | None) -> bool:
    """Whether no checkpoint has a validation figure as low as this."""
    if validation is None:
      return False
    ranking = self.checkpoints.ranking()
    return not ranking or validation.nats_per_image < ranking[0][0]

  def save(self, validation: Evaluation | None) -> None:
    """Saves a checkpoint, unless the parameters are no longer finite."""
    state = jax.device_get(self.state)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(state.params)):
      raise Diverged(_diverged("The parameters are not finite", self.step))
    self.checkpoints.save(
        self.step, state, self.iterator,
        validation.nats_per_image if validation else None,
        self.sources["train"].description, self.config.train.accumulate,
        parallel.settings())

  def finish(self) -> None:
    """Evaluates the last checkpoint and draws samples, unless that is done."""
    config, source = self.config, self.sources["test"]
    if read_evaluation(self.workdir, self.step) is None:
      evaluation = evaluate(self.eval_step, self.state.params, source, config)
      report(
          self.workdir, config, self.step, "last", "test", source.description,
          evaluation)
    self.draw_samples()


class _Window:
  """The steps since the last line of metrics."""

  def __init__(self, config: Config, updates_missed: dict[str, int]):
    self.config = config
    self.updates_missed = updates_missed
    self.schedule = make_schedule(config.optimizer, config.train.steps)
    self.results = []
    self.images = 0  # since the clock was started
    self.start = None

  def append(self, metrics: dict) -> None:
    """Adds the metrics of a step, which stay on the device."""
    self.results.append(metrics)
    if self.start is None:
      jax.block_until_ready(metrics)  # the first step, with compilation
      self.open()
    else:
      parallel.wait(self.results)
      self.images += self.config.train.batch_size

  def open(self) -> None:
    """Starts the clock."""
    self.start = time.perf_counter()
    self.images = 0

  def close(self, step: int) -> dict[str, float]:
    """Brings the metrics to the host and empties the window.

    Args:
      step: the number of the last step in it.

    Returns:
      Means over the window.

    Raises:
      Diverged: the loss or the gradient of a step was not finite.
    """
    results = jax.device_get(self.results)
    seconds = time.perf_counter() - self.start
    for i, result in enumerate(results):
      for name, what in (("nats", "The loss"), ("grad_norm", "The gradient")):
        if not np.isfinite(value := result[name].sum()):
          raise Diverged(_diverged(
              f"{what} became {value}", step - len(results) + 1 + i))
    model = self.config.model
    trained = trained_scales(model, self.config.train.scale)
    images = sum(r["images"] for r in results)
    # Of each trained scale, and of all together if all are trained.
    nats = {
        suffix: math.fsum(r["nats"][i] for r in results) / images
        for i, suffix in enumerate(self.updates_missed)}
    shapes = {
        suffix: model.scale_shapes()[s]
        for s, suffix in zip(trained, self.updates_missed, strict=True)}
    if len(trained) == len(model.multi_scale) + 1:
      nats[""], shapes[""] = math.fsum(nats.values()), model.image_shape
    values = {}
    for suffix in sorted(nats):
      values[f"train/nats_per_image{suffix}"] = nats[suffix]
      values[f"train/bits_per_dim{suffix}"] = nats_to_bits_per_dim(
          nats[suffix], shapes[suffix])
    values["train/grad_norm"] = (
        math.fsum(r["grad_norm"] for r in results) / len(results))
    for suffix, missed in self.updates_missed.items():
      values[f"train/learning_rate{suffix}"] = float(self.schedule(step - 1 - missed))
    if self.images:
      values["train/images_per_second"] = self.images / seconds
    self.results = []
    return values


def _summary(config: Config, values: dict[str, float]) -> str:
  """What the progress bar shows."""
  name, unit, digits = (
      ("nats_per_image", "nats/image", 2) if config.model.levels == 2
      else ("bits_per_dim", "bits/dim", 3))
  prefix = f"train/{name}"
  text = ", ".join(
      f"{key.removeprefix(prefix).replace('_', '')} {value:.{digits}f} {unit}".strip()
      for key, value in values.items() if key.startswith(prefix))
  if config.model.multi_scale and prefix in values:
    text = f"<= {text}"
  if "train/images_per_second" in values:
    text += f", {values['train/images_per_second']:.0f} images/s"
  return text


def _diverged(what: str, step: int) -> str:
  return (
      f"{what} at step {step}. Training stopped; the last checkpoint before it is"
      " kept. Train in another --workdir with a lower optimizer.learning_rate or"
      " optimizer.clip_norm, or more optimizer.warmup_steps."
  )
