"""The common part of all programs in `experiments/`: flags, messages, exit codes."""

import contextlib
import io
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

import help_text
import startup
from pixelrnn_jax import files
from pixelrnn_jax.configs import load_config
from pixelrnn_jax.configs.fields import check_field
from pixelrnn_jax.configs.schema import Config, ModelConfig
from pixelrnn_jax.errors import InputError, Interrupted, out_of_memory
from pixelrnn_jax.training import peers

_GRACE = 1.0  # seconds for what other processes, or threads, have to say
_LEAVING = threading.Lock()


def run(
    main: Callable, config: bool = False, distributed: bool = False,
    optional: bool = False,
) -> None:
  """Run an absl main; bad input becomes one line on stderr and exit code 1.

  Args:
    main: called without arguments, or with the configuration.
    config: whether `--config=NAME` and `--config.part.field=value` are defined. The
      configuration is checked and handed to `main`.
    distributed: whether the flags that make this one of several processes are defined.
    optional: whether `main` is handed None if there is no `--config...`.
  """
  startup.interruptible()
  for stream in (sys.stdout, sys.stderr):  # they may not know all letters of a path
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")
  if distributed:
    _define_process_flags()
  if config:

    def start() -> None:
      # The place of moved data does not count, because it may be that of a run's data.
      given = any(
          re.match(r"--?(no)?config\b(?!\.data\.(source|data_dir)\b)", x)
          for x in sys.argv[1:])
      main(_checked_config() if given or not optional else None)
  else:
    start = main

  def absl_main(_):
    if not flags.FLAGS["verbosity"].present:
      # Orbax logs the exceptions that it raises, with a traceback.
      logging.set_verbosity(logging.FATAL)
    try:
      with contextlib.ExitStack() as stack:
        if distributed:
          _join_processes(stack)
        stack.enter_context(out_of_memory(
            "Take smaller batches or a smaller model: --config.train.batch_size,"
            " --batch_size, --config.model.hidden, where the program has them."))
        start()
        sys.stdout.flush()  # here an error of it is told
    except BrokenPipeError:
      raise
    except InputError as error:
      _fail(f"error: {error}")
    except Interrupted as interrupted:
      if jax.distributed.is_initialized():  # all of them were interrupted
        print(interrupted, file=sys.stderr)
        sys.exit(interrupted.exit_code)
      _fail(str(interrupted), interrupted.exit_code)
    except KeyboardInterrupt:
      _fail("SIGINT: stopped.", 130)
    except Exception as error:
      if reason := files.disk_fault(error):
        _fail(f"error: {reason}.")
      if not jax.distributed.is_initialized():
        raise
      if isinstance(error, jax.errors.JaxRuntimeError):
        _fail(_lost("the others: " + " ".join(str(error).split())[:300]))
      time.sleep(2 * _GRACE)  # `_lost` comes first, if another process is gone
      _fail("".join(traceback.format_exception(error)))

  try:
    if config:
      check_overrides(sys.argv)
      config_flags.DEFINE_config_dataclass(
          "config", Config(name="", model=ModelConfig("pixel_cnn", (1, 1, 1))),
          "The name of a configuration; --config.part.field=value changes it.",
          parse_fn=load_config,
      )
    app.run(absl_main, flags_parser=_parse_flags)
  except InputError as error:
    _fail(f"error: {error}")
  except BrokenPipeError:
    if not startup.reader_is_gone():
      raise
    startup.discard_output()
    _fail("", 128 + signal.SIGPIPE)


def _define_process_flags() -> None:
  """Define the flags that make this one of several processes."""
  flags.DEFINE_bool(
      "distributed", False,
      "One of several processes; where a TPU pod, Slurm, Open MPI or Kubernetes has"
      " started them, JAX finds the others by itself.")
  flags.DEFINE_string(
      "coordinator", None,
      "HOST:PORT of process 0, where JAX cannot find it by itself; with"
      " --process_count and --process_id.")
  flags.DEFINE_integer("process_count", None, "How many processes there are.")
  flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def _join_processes(stack: contextlib.ExitStack) -> None:
  """Call `jax.distributed.initialize` as the flags say.

  Args:
    stack: a stack of contexts. A context that notices the end of another process is
      added.

  Raises:
    InputError: the flags do not fit each other, or the processes do not find each
      other.
  """
  names = ("coordinator", "process_count", "process_id")
  given = {name: flags.FLAGS[name].value for name in names}
  count, index = given["process_count"], given["process_id"]
  if all(value is None for value in given.values()):
    if not flags.FLAGS.distributed:
      return
  elif None in given.values():
    missing = " and ".join(f"--{n}" for n, value in given.items() if value is None)
    raise InputError(
        f"{missing} missing: --coordinator, --process_count and --process_id go"
        " together. Without all of them, --distributed asks the environment."
    )
  elif not re.fullmatch(r".+:\d+", str(given["coordinator"])):
    raise InputError(
        f"--coordinator={given['coordinator']}: must be HOST:PORT of process 0, for"
        " example node1:1234."
    )
  elif not 0 <= int(index or 0) < int(count or 0):
    raise InputError(
        f"--process_id={index} with --process_count={count}: must be from 0 to"
        " process_count - 1."
    )
  try:
    jax.distributed.initialize(given["coordinator"], count, index)
  except (ValueError, RuntimeError) as error:
    raise InputError(
        f"The processes did not find each other: {' '.join(str(error).split())[:300]}"
        " Give --coordinator=HOST:PORT, --process_count=N and --process_id=I to each."
    ) from error

  def lost(process: int) -> None:
    if process:  # without process 0, JAX ends this one in milliseconds
      time.sleep(_GRACE)
    _leave(_lost(f"process {process}."), 1)

  host = (given["coordinator"] or "").rpartition(":")[0]
  stack.enter_context(peers.watch(host or None, lost))


def _lost(what: str) -> str:
  """Return the message for other processes that are gone."""
  return (
      f"error: process {jax.process_index()} of {jax.process_count()} lost {what}"
      " Start all of them again; they go on from the newest checkpoint.")


def _leave(message: str, code: int) -> NoReturn:
  """End one of several processes after an error.

  JAX's own way out would wait minutes for processes that are gone. Process 0 leaves
  last, because its end is that of the others, which may have messages.
  """
  _LEAVING.acquire()  # it is never released: one message is enough
  print(message, file=sys.stderr, flush=True)
  sys.stdout.flush()
  time.sleep(_GRACE if jax.process_index() == 0 else 0.0)
  os._exit(code)


def define_data_flags() -> None:
  """Define the flags that say where a run's data is now; see `moved_data`."""
  flags.DEFINE_string(
      "config.data.source", None,
      "Where the run's images are now, if they have moved: folder:PATH.")
  flags.DEFINE_string(
      "config.data.data_dir", None,
      "Where TFDS's data is now, if it has moved, or where decoded images of a folder"
      " are to be kept.")


def moved_data() -> dict[str, str]:
  """Return the values of the flags of `define_data_flags` that were given."""
  names = {name: f"config.data.{name}" for name in ("source", "data_dir")}
  return {
      field: str(flags.FLAGS[name].value) for field, name in names.items()
      if name in flags.FLAGS and flags.FLAGS[name].present}


def required(name: str, value: str | None) -> str:
  """Return the value of the flag `--name`; raise InputError if it was not given."""
  if not value:
    raise InputError(f"--{name} is required.")
  return value


def check_overrides(arguments: list[str]) -> None:
  """Raise InputError for a `--config.part.field` that no configuration has."""
  for argument in arguments:
    match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
    if match:
      check_field(match[1])


def _parse_flags(arguments: list[str]) -> list[str]:
  """Parse all flags; a bad one ends the program with one line."""
  if help_text.asked(arguments):
    help_text.show()
    sys.exit(0)
  try:
    rest = flags.FLAGS(arguments)
  except (flags.Error, ValueError) as error:
    _fail("error: " + " ".join(str(error).split()))
  if len(rest) > 1:
    _fail(f"error: unexpected argument {rest[1]!r}: flags start with --.")
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    if flag.present > 1 and isinstance(flag.parser, flags.ListParser):
      _fail(  # absl would keep the last list alone
          f"error: --{name} is given {flag.present} times. Give it once, with commas:"
          f" --{name}=ONE,OTHER.")
  return rest


def _checked_config() -> Config:
  """Return the configuration of the command line."""
  config = flags.FLAGS.config
  if not config.name:
    from pixelrnn_jax import configs

    raise InputError(
        f"--config is required. The names are: {', '.join(configs.CONFIGS)}; each"
        " also as NAME:smoke."
    )
  config.validate()
  return config


def _fail(message: str, code: int = 1) -> NoReturn:
  """Print a message to stderr and exit."""
  if jax.distributed.is_initialized():
    _leave(message, code)
  try:
    print(message, file=sys.stderr)
  except OSError:  # nobody reads it, but the code says it too
    startup.discard_output()
  sys.exit(code)
