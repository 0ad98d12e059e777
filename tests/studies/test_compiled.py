"""Summaries of compiled programs, from recorded text. No compiler is needed."""
# ruff: noqa: E501

import dataclasses
import json

import pytest

from pixelrnn_jax.configs import load_config
from pixelrnn_jax.errors import InputError
from pixelrnn_jax.ops.choices import DEFAULTS
from pixelrnn_jax.studies import compiled

# Shortened text of a program for a v5e. It has a loop over 12 layers, and in it a scan
# of 63 steps.
TPU = r"""HloModule jit_step, is_scheduled=true

%fused_computation.1 (param_0: f32[8,128]) -> f32[8,128] {
  %param_0 = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %multiply.1 = f32[8,128]{1,0:T(8,128)} multiply(%param_0, %param_0)
}

%scan_body (arg: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %arg = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %gte.1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %fusion.7 = f32[8,128]{1,0:T(8,128)S(1)} fusion(%gte.1), kind=kLoop, calls=%fused_computation.1, metadata={op_name="jit(f)/layers/transpose(layers)/jvp(scan)/while/body/mul" stack_frame_id=7}, backend_config={"window_config":{"estimated_cycles":"1000"}}
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%gte.1, %fusion.7)
}

%scan_condition (arg.1: (s32[], f32[8,128])) -> pred[] {
  %arg.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %constant.9 = s32[]{:T(128)} constant(63)
  ROOT %compare.1 = pred[]{:T(512)} compare(%arg.1, %constant.9), direction=LT
}

%layers_body (arg.2: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %arg.2 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %while.8 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%arg.2), condition=%scan_condition, body=%scan_body, metadata={op_name="jit(f)/layers/while" stack_frame_id=2}
  %copy.3 = f32[8,128]{1,0:T(8,128)} copy(%while.8), backend_config={"window_config":{"estimated_cycles":"500"}}
  ROOT %tuple.2 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%arg.2, %copy.3)
}

%layers_condition (arg.3: (s32[], f32[8,128])) -> pred[] {
  %arg.3 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %constant.10 = s32[]{:T(128)} constant(12)
  ROOT %compare.2 = pred[]{:T(512)} compare(%arg.3, %constant.10), direction=LT
}

ENTRY %main.1 (p0: f32[8,128]) -> f32[8,128] {
  %p0 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %while.9 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%p0), condition=%layers_condition, body=%layers_body, metadata={op_name="jit(f)/jvp(layers)/while" stack_frame_id=1}
  %convolution.4 = f32[8,128]{1,0:T(8,128)} convolution(%p0, %p0), metadata={op_name="jit(f)/jvp(head)/transpose(jvp())/dot_general"}, backend_config={"window_config":{"estimated_cycles":"3000"}}
  ROOT %add.5 = f32[8,128]{1,0:T(8,128)} add(%convolution.4, %p0), backend_config={"window_config":{"estimated_cycles":"40"}}
}
"""


def test_a_tpu_program_is_counted_through_its_loops():
  summary = compiled.summarize_tpu(TPU, clock=1e6)
  assert summary.iterations == 12 + 12 * 63
  assert summary.kernels == 12 * 63 + 12 + 2
  # A copy without metadata belongs to the loop around it.
  assert summary.parts == {
      "scan backward": 12 * 63 * 1.0, "layers forward": 12 * 0.5, "head": 3.0,
      "other": 0.04}
  assert summary.milliseconds == pytest.approx(sum(summary.parts.values()))
  assert summary.launches is None


def result(milliseconds, **changes):
  summary = compiled.Summary(
      10, 4, milliseconds, None, {"scan forward": milliseconds})
  return dataclasses.replace(compiled.Result(
      "quickstart", "", "tpu_v5e", "step", "bfloat16", 1, 16, 1.5, True, 197e9,
      summary, "jax"), **changes)


def test_two_runs_side_by_side():
  before, after = result(4.0), result(2.0)
  again = compiled.from_record(json.loads(json.dumps(dataclasses.asdict(before))))
  assert again == before and again.key() == after.key()
  text = "\n".join(compiled.lines(after, again))
  # 197e9 operations in 2 ms are half of 197e12 operations a second.
  assert "50.0%" in text and "0.50" in text and "before       4.00" in text
  with pytest.raises(InputError, match="--json"):
    compiled.from_record({"config": "quickstart"})


def test_choices_are_those_of_the_target():
  config = load_config("row_lstm_mnist")
  config.model.unroll = 7
  compiled.as_on(config, "tpu_v5e")
  assert config.model.choices == dataclasses.replace(DEFAULTS["tpu"], unroll=7)


# Shortened text of a program for an H100: the metadata of its thunks, and the thunks in
# order. It has a loop over 2 layers, and in it a scan of 7 steps.
GPU = TPU.replace("constant(63)", "constant(7)").replace("constant(12)", "constant(2)")
METADATA = "".join(
    f'thunk_metadata {{\n  thunk_info {{\n    profile_annotation: "{name}"\n    thunk_id: {number}\n  }}\n}}\n'
    for name, number in [
        ("convolution.4", 1), ("while.9", 2), ("copy.3", 4), ("while.8", 5),
        ("fusion.7", 7)])
THUNKS = """\
000: kCommandBuffer [source       | next=002 (1)]
    001: kCustomKernel [source | sink] gemm_fusion_dot_general_74 grid: [235, 1, 1]
002: kWhile         [prev=000 (1) | next=000 (1)]
condition:
    003: kCustomKernel [source | sink] loop_compare_fusion_2 grid: [1, 1, 1]
  body:
    000: kCommandBuffer [source       | next=005 (1)]
        004: kCopy               [source        | sink         ] kCopy
    005: kWhile         [prev=000 (1) | next=000 (1)]
condition:
        006: kCustomKernel [source | sink] loop_compare_fusion_3 grid: [1, 1, 1]
      body:
        000: kCommandBuffer [source | sink]
            007: kCustomKernel [source       | next=058 (1)] input_concatenate_fusion_7 grid: [42, 1, 1]
            008: kDynamicSliceFusion [source        | next=048 (11)] params=1, results=1
    009: kCopy [source | sink] kCopy
010: kCopy [source | sink] kCopy
"""


def test_a_gpu_program_is_counted_through_its_loops():
  summary = compiled.summarize_gpu(GPU, THUNKS, METADATA)
  assert summary.iterations == 2 + 2 * 7
  assert summary.launches == 1 + 2 + 2 * 7
  # Kernels: the head's product once, two copies twice, the scan's 14 times, and the
  # last copy once.
  assert summary.kernels == 1 + 2 * 2 + 2 * 7 + 1
  assert summary.parts == {
      "scan backward": 14, "head": 1, "layers forward": 2, "other": 3}
  assert summary.milliseconds is None
