"""MLX and where it runs. Import `mx` from here, never from mlx: this puts a fast BLAS in front before mlx loads.

The import has that one effect on purpose: a command or test that forgot to ask for it would be 20 times slower.
"""

import os

from lab.blas import put_fast_blas_in_front

BLAS = put_fast_blas_in_front()

import mlx.core as mx  # noqa: E402  (must come after the BLAS)

BACKENDS = ("metal", "cuda", "cpu")


def backend():
    """ "metal", "cuda" or "cpu": what MLX computes on by default."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def computes_in_float32():
    """Whether quantized weights are dequantized at load and everything runs in float32: on the CPU only.

    MLX's CPU kernels for bfloat16 and quantized products do 0.2 to 6 GFLOP/s, float32 through OpenBLAS 50 and more.
    """
    return backend() == "cpu"


def describe():
    """One line for people: backend, number format, BLAS, threads."""
    if backend() != "cpu":
        return f"device: {backend()} (MLX {mx.__version__}), weights as they are stored"
    warning = "" if BLAS.fast else "warning: slow "
    return f"device: cpu (MLX {mx.__version__}), float32, {os.cpu_count()} cores, {warning}BLAS: {BLAS.name}"
