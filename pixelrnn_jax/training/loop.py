"""A run, from its configuration to its evaluation.

The config alone determines what a step computes. The parameters follow from the seed.
The batches follow from the data iterator, whose position is in the checkpoint. Keys are
`fold_in(key(seed), step)`. So a run that was killed and started again ends where an
undisturbed one does.
"""

import os
import signal
from collections.abc import Callable
from typing import cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from pixelrnn_jax import arguments, data, files, progress
from pixelrnn_jax.configs.fields import changed_fields
from pixelrnn_jax.configs.json_text import to_json
from pixelrnn_jax.configs.schema import SPLITS, Config
from pixelrnn_jax.errors import Diverged, InputError, Interrupted, out_of_memory
from pixelrnn_jax.inference import precision
from pixelrnn_jax.inference.likelihood import (
  bound_note,
  scale_name,
  scale_suffix,
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
  TrainState,
  by_scale,
  init_state,
  trained_scales,
  updates_taken,
)
from pixelrnn_jax.training import parallel
from pixelrnn_jax.training.evaluation import (
  Evaluation,
  evaluate,
  evaluated_config,
  read_evaluation,
  report,
)
from pixelrnn_jax.training.signals import StopSignals
from pixelrnn_jax.training.window import Window, diverged_message, summary_text
from pixelrnn_jax.training.workdir import alone_in, check_workdir
from pixelrnn_jax.visualization.captions import Caption
from pixelrnn_jax.visualization.grids import save_grid


def train(
    config: Config, workdir: str, on_metrics: Callable[[dict], None] | None = None
) -> None:
  """Train, evaluate on the whole test split, and draw samples.

  Training continues from the newest checkpoint of the work directory. It writes
  `config.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`, `evaluation.json`
  and, for each validation, `samples/step_STEP.png`.

  Args:
    config: the experiment.
    workdir: made if it does not exist. If it holds a run, that run's config must be
      this one. Only `train.steps` may have grown, `train.scale`, `data.augmentation`
      and `optimizer.decay_steps` may be others, and the fields that alter no parameter
      may differ. Scales that are trained one after another become one model.
    on_metrics: called with each line of `metrics.jsonl` once it is written, on
      process 0, between steps. Its time does not count in images/s. Its exceptions end
      the run.

  Raises:
    InputError: the config, the devices, the data or the work directory do not fit each
      other, or another training is at work there. Then nothing was written. Also: the
      disk is full or broken, a process that reads data was killed, or the loss is no
      longer finite.
    Interrupted: SIGTERM or SIGINT came. A checkpoint was saved.
  """
  if not isinstance(config, Config):
    raise InputError(
        f"config is of the type {type(config).__name__}: give a Config, as from"
        " load_config.")
  workdir = files.expand(arguments.path("workdir", workdir))
  with parallel.together():
    config.validate()
    parallel.check_batch_size(config.train)
    check_schedule(config)
    check_workdir(config, workdir)
    sources = {
        split: data.load_source(config, split)
        for split in SPLITS
    }
    data.check_enough(config, sources["train"])
  # A signal is remembered from here on, before worker processes start. They would lose
  # it, or die of it while they are still importing.
  with alone_in(workdir), StopSignals() as signals:
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


class _Run:
  """A run in progress."""

  checkpoints: Checkpoints
  metrics: MetricsWriter
  bar: tqdm
  state: TrainState

  def __init__(
      self, config: Config, workdir: str, sources: dict[str, data.ImageSource],
      signals: StopSignals,
      on_metrics: Callable[[dict], None] | None = None,
  ):
    """Make the model, the programs of a step and the data iterator.

    Args:
      config: see `train`.
      workdir: see `train`.
      sources: the images of each split.
      signals: the signals that have come.
      on_metrics: see `train`.
    """
    self.config, self.workdir, self.sources = config, workdir, sources
    self.signals, self.on_metrics = signals, on_metrics
    self.model = build_model(config.model)
    self.optimizer = make_optimizer(config.optimizer, config.train.steps)
    self.train_step = parallel.make_train_step(
        self.model, self.optimizer, config.train.accumulate, config.train.scale)
    self.evaluated = evaluated_config(config.model)
    self.eval_step = parallel.make_eval_step(build_model(self.evaluated))
    self.iterator = data.train_iterator(
        config, sources["train"], jax.process_index(), jax.process_count())
    self.key = jax.random.key(config.train.seed)
    self.step = 0
    self.damaged = None
    self.validate_first = False
    self.callback_error = None

  def say(self, message: str) -> None:
    """Print on process 0, above a progress bar.

    If nobody reads stdout any more, as after `head`, the run stops as at a signal.
    """
    if jax.process_index() == 0:
      try:
        progress.say(message)
      except BrokenPipeError:
        self.signals.received = self.signals.received or signal.SIGPIPE

  def images_of(self, split: str) -> str:
    """Return the description of a split's images, and of their random changes.

    Only training images are changed. The figures of the others are of the images as
    they are.
    """
    rule = self.config.data.augmentation
    changed = split == "train" and rule != "none"
    augmented = f", augmented ({rule})" if changed else ""
    return self.sources[split].description + augmented

  def describe(self, split: str) -> str:
    """Return the description of a figure: the images, and whether it is a bound."""
    return "; ".join(
        filter(None, [self.images_of(split), bound_note(self.config.model)]))

  def due(self, every: int) -> bool:
    """Return whether an action is due that is taken `every` steps and at the end."""
    return self.step % every == 0 or self.step == self.config.train.steps

  @out_of_memory(
      "Less is taken by --config.train.accumulate=2 or more, which takes a batch in"
      " parts, --config.model.rematerialize=True, --config.model.dtype=bfloat16, or a"
      " smaller --config.train.batch_size.")
  def train_all(self) -> None:
    """Do everything that is still to be done."""
    with parallel.together():
      self.restore()
    self.write_config()
    if self.step < self.config.train.steps or self.validate_first:
      self.train()
    else:
      self.say(
          f"{self.workdir} is complete: {self.step} steps. More train.steps would go"
          " on.")
    # A signal may have come while files were read or closed. The next one acts at once.
    self.signals.release()
    self.stop_if_asked()
    self.finish()

  def restore(self) -> None:
    """Read the newest good checkpoint, or draw the parameters."""

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
    # A validation that a signal cut short is repeated.
    self.validate_first = (
        restored.info.validation_nats is None
        and self.due(self.config.train.eval_every)
    )
    self.say(f"Resuming {self.workdir} at step {self.step}.")
    self.compare(restored.info)
    old = read_config(self.workdir)
    for change in changed_fields(
        old, self.config, lambda field: field.metadata.get("retrains", False)):
      self.say(f"{change} from step {self.step} on.")
    self.compare_schedules(old)

  def compare_schedules(self, old: Config) -> None:
    """Tell the user if the learning rate is no longer that of the run so far."""
    rates = [
        float(np.asarray(make_schedule(c.optimizer, c.train.steps)(self.step)))
        for c in (old, self.config)]
    if self.config.train.scale < 0 and rates[0] != rates[1]:
      end = decay_end(self.config.optimizer, self.config.train.steps)
      then = f"and its decay ends at step {end}" if end else "where it stays"
      self.say(
          f"The schedule has changed: at step {self.step} the learning rate goes from"
          f" {rates[0]:.2g} to {rates[1]:.2g}, {then}. The steps before were taken"
          " with the old schedule, so this is not the run that began with the new one.")

  def compare(self, info: Info) -> None:
    """Tell the user how this process differs from that of the checkpoint.

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
    """Write the config, after which the directory belongs to this run."""
    if jax.process_index() == 0:
      path = os.path.join(self.workdir, layout.CONFIG)
      if files.read_text(path) != to_json(self.config):
        files.write_text(path, to_json(self.config))

  def train(self) -> None:
    """Step until the end, with validations and checkpoints on the way."""
    config, source = self.config, self.sources["train"]
    parameters = sum(x.size for x in jax.tree.leaves(self.state.params))
    self.say(
        f"{config.name}: {parameters:,} parameters, {jax.device_count()}"
        f" {jax.devices()[0].platform} device(s), {len(source):,} training images"
        f" ({self.images_of('train')}), products in"
        f" {precision.describe(config.model.dtype, training=True)}"
    )
    for note in source.notes:
      self.say(f"note: {note}")
    trained = trained_scales(config.model, config.train.scale)
    if len(trained) < len(config.model.scale_shapes()):
      name = scale_name(config.model, trained[0])
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

  def call_back(self, line: dict) -> None:
    """Hand a line of metrics to the caller of `train`."""
    if self.on_metrics:
      try:
        self.on_metrics(line)
      except Exception as error:
        self.callback_error = error
        raise

  def stop_if_asked(self) -> None:
    """Raise Interrupted if a signal has come, to any process, since the last save."""
    if self.any_process(self.signals.received):
      name = signal.Signals(self.signals.received).name
      where = (
          f"after step {self.step}, whose checkpoint is saved. The same command goes on"
          " from there." if self.step
          else "before the first step. The same command starts anew.")
      raise Interrupted(f"{name}: stopped {where}", self.signals.received)

  def take_steps(self) -> None:
    """Take the steps, which is the loop itself."""
    settings = self.config.train
    window = Window(self.config, self.updates_missed())
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
      self.metrics.write(self.step, values, self.describe("train"))
      self.bar.set_postfix_str(summary_text(self.config, values), refresh=False)
      validation = self.validate() if validating else None
      stop = stop or (validating and validation is None)
      if saving or stop or self.is_best(validation):
        self.save(validation)
      if stop:
        self.stop_if_asked()
      window.open()

  def next_batch(self) -> np.ndarray:
    """Return the next images.

    Raises:
      InputError: a worker process was killed. A single training process has saved a
        checkpoint then.
      Interrupted: so it was, and a signal came to the training process as well.
    """
    try:
      return next(self.iterator)
    except RuntimeError as error:
      if not data.lost_worker(error):
        raise
      # Several training processes could only save together.
      if jax.process_count() == 1 and self.step:
        if self.step not in self.checkpoints.steps():
          self.save(None)
        where = f"step {self.step}, whose checkpoint is saved"
      else:
        where = "the newest checkpoint"
      if jax.process_count() == 1:
        # A signal to the whole group may have ended the worker too (on macOS).
        self.stop_if_asked()
      raise InputError(
          f"After step {self.step} one of the {self.config.data.workers} processes"
          " that read data (data.workers) was killed; where memory is short, the"
          f" system does that. The same command goes on from {where}. If it happens"
          " again, free memory or use another --workdir with fewer data.workers."
      ) from error

  def updates_missed(self) -> dict[str, int]:
    """Return the number of steps in which each trained scale was not trained.

    The keys are the suffixes of the scales' metrics.
    """
    model = self.config.model
    opt_states = by_scale(self.model, self.state.opt_state)
    return {
        scale_suffix(model, s): self.step - updates_taken(opt_states[s])
        for s in trained_scales(model, self.config.train.scale)}

  def stop_asked(self) -> bool:
    """Return whether a signal has come, to any process.

    Several processes have to agree. They ask each other every `log_every` steps.
    """
    if jax.process_count() > 1 and not self.due(self.config.train.log_every):
      return False
    return bool(self.any_process(self.signals.received))

  def any_process(self, received: int) -> int:
    """Return the signal that this process or another has received, or 0.

    All processes must call it together.
    """
    if jax.process_count() > 1:
      gathered = multihost_utils.process_allgather(np.array(received))
      self.signals.received = received = int(gathered.max())
    return received

  def validate(self) -> Evaluation | None:
    """Evaluate on the validation split; return None if a signal came meanwhile."""
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
        f"_{size}": figures for size, figures in evaluation.scales.items()}
    self.metrics.write(self.step, {
        f"validation/{name}{suffix}": getattr(figure, name)
        for suffix, figure in figures.items()
        for name in ("nats_per_image", "nats_standard_error", "bits_per_dim")
        if getattr(figure, name) is not None
    }, self.describe("validation"))
    self.say(
        f"step {self.step}: validation {evaluation} over {evaluation.over()}"
        f" ({source.description})"
    )
    self.draw_samples()
    return evaluation

  def draw_samples(self) -> None:
    """Write the grid of this step, unless it exists.

    The grid follows from the parameters, the seed and the step, so it is the same if it
    is drawn again after a restart. It is drawn before the step's checkpoint is saved.
    So a run that is killed meanwhile draws it after the restart.
    """
    config = self.config
    folder = os.path.join(self.workdir, layout.SAMPLES)
    path = os.path.join(folder, f"step_{self.step:08d}.png")
    if not config.train.samples or jax.process_index() > 0 or os.path.exists(path):
      return
    number = config.train.samples
    images = np.asarray(sample(
        self.model, {"params": jax.device_get(self.state.params)},
        jax.random.fold_in(self.key, self.step), number))
    os.makedirs(folder, exist_ok=True)
    save_grid(images, path, config.model.levels, caption=Caption(
        f"{number} samples", config.name, self.step,
        f"trained on {self.sources['train'].description}", config.train.seed))
    self.say(f"step {self.step}: {config.train.samples} samples, {path}")

  def is_best(self, validation: Evaluation | None) -> bool:
    """Return whether no checkpoint has a validation figure as low as this."""
    if validation is None:
      return False
    ranking = self.checkpoints.ranking()
    return not ranking or validation.nats_per_image < ranking[0][0]

  def save(self, validation: Evaluation | None) -> None:
    """Save a checkpoint, unless the parameters are no longer finite."""
    state = jax.device_get(self.state)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(state.params)):
      raise Diverged(diverged_message("The parameters are not finite", self.step))
    self.checkpoints.save(
        self.step, state, self.iterator,
        validation.nats_per_image if validation else None,
        self.sources["train"].description, self.config.train.accumulate,
        parallel.settings())

  def finish(self) -> None:
    """Evaluate the last checkpoint and draw samples, unless that is done."""
    config, source = self.config, self.sources["test"]
    if read_evaluation(self.workdir, self.step) is None:
      evaluation = evaluate(self.eval_step, self.state.params, source, config)
      report(
          self.workdir, config, self.step, "last", "test", source.description,
          cast(Evaluation, evaluation), self.evaluated.dtype)
    self.draw_samples()
