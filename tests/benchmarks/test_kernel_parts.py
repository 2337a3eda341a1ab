"""The parts of a training step by the names of its kernels, as a profile of an H100 had them."""

from itertools import chain

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernels import PARTS, REST, main, part_of, parts_table

pytest.importorskip("triton", reason="without Triton there are the library's kernels alone")
from resnet.kernels import launching  # noqa: E402

NAMES = {
    "sm80_xmma_wgrad_implicit_gemm_indexed_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize": "weight gradients",
    "void cudnn::engines_precompiled::convertTensor_kernel<__nv_bfloat16, float>": "weight gradients",
    "sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize": "input gradients",
    "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized>": "forward convolutions",
    "void at::native::batch_norm_collect_statistics_channels_last_kernel<at::native::Var>": "BN",
    "void cudnn::batchnorm_fwtr_nhwc_semiPersist<__half, float, __half, 512>": "BN",
    "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native>": REST,
    "Memset (Device)": REST,
    "weight_gradient": "weight gradients",
    "normalize_gradient": "BN",
    "add_parts": "last sums",
}


@pytest.mark.parametrize(("kernel", "part"), NAMES.items(), ids=lambda text: text[:40])
def test_a_kernels_part_follows_from_its_name(kernel, part):
    assert part_of(kernel) == part and part in PARTS


def test_every_kernel_of_a_step_has_a_part():
    from benchmarks.kernel_costs import step_launches

    launches = step_launches("cifar_resnet20")
    assert len(launches) == 139
    bottlenecks = step_launches("cifar_bottleneck11", variant="d")
    assert {launch.kernel.fn.__name__ for launch in launches + bottlenecks} == kernels._FUSED_PARTS.keys()


def test_other_settings_change_the_kernels_that_they_name_and_no_other():
    from benchmarks.kernel_costs import step_launches
    from benchmarks.kernel_times import OTHERS

    def cut(settings) -> dict[str, list]:
        found = {}
        launches = [step_launches(model, settings=settings) for model in ("cifar_resnet14", "cifar_bottleneck11")]
        for launch in chain.from_iterable(launches):
            found.setdefault(launch.kernel.fn.__name__, []).append((launch.grid, launch.constants, launch.warps))
        return found

    usual = cut(launching.SETTINGS)
    for settings, named in OTHERS.values():
        other = cut(settings)
        changed = {name for name in usual if other[name] != usual[name]}
        assert changed and changed - {"statistics"} <= set(named)


def test_a_recorded_launch_can_be_started():
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(16, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    with launching.recording() as launches:
        y, _ = launching.convolve_images(x, weight, statistics=True)
    launching.start_again(launches[0])
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, weight, padding=1))


def test_the_table_adds_up_each_part():
    library = {"sm80_wgrad_a": (6.0, 207.1), "sm90_wgrad_b": (14.0, 267.9), "Memset (Device)": (50.3, 51.9)}
    lines = parts_table(library, {"weight_gradient": (19.0, 40.0)}).splitlines()
    assert "| weight gradients | 20 | 475 | 19 | 40 |" in lines
    assert "| everything else | 50 | 52 | 0 | 0 |" in lines and "| all | 70 | 527 | 19 | 40 |" in lines


def test_without_a_gpu_the_command_says_so(capsys):
    assert main(["--device", "cpu"]) == 2
    assert "no CUDA GPU here; --costs 90 needs none" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_step_is_measured_by_both(capsys):
    assert main(["--models", "cifar_resnet8", "--pack", "1", "2", "--rounds", "1", "--seconds", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert "| weight gradients |" in printed and "| 2 |" in printed and "| normalize_gradient |" in printed
    assert main(["--models", "cifar_resnet8", "--settings"]) == 0
    assert "failed" not in capsys.readouterr().out
