"""The kernels of a GPU become machine code for one, here where there is none."""

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("name", ["sums", "moments"])
def test_the_kernels_compile_for_a_gpu_without_one(name, gaussian):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zo.kernels import triton_kernels

    kernel = getattr(triton_kernels, name)
    numbers = {"scales_ptr", "coefficients_ptr", "first_ptr", "second_ptr"}
    constants = {"gaussian": gaussian, "tile": 1024} | dict.fromkeys(
        ("reads", "by_rows", "decays", "inside_root"), True
    )
    types = {
        argument: "constexpr" if argument in constants
        else "*bf16" if argument in ("w_ptr", "out_ptr")
        else "*fp32" if argument in numbers
        else "*i64" if argument.endswith("_ptr")
        else "fp32" if argument in ("decay", "scale", "eps")
        else "i32"
        for argument in kernel.arg_names
    }  # fmt: skip
    source = ASTSource(kernel, types, {k: v for k, v in constants.items() if k in types})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    # Every rounding is IEEE's own.
    assert not any(word in made.asm["ptx"] for word in ("fma.rn.f32", ".ftz", "approx", "div.full"))
