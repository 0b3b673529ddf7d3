"""MLX and where it runs. Import `mx` from here, never from mlx: this puts a fast BLAS in front before mlx loads.

The import has that one effect on purpose: a command or test that forgot to ask for it would be 20 times slower.
"""

import ctypes
import os
import platform
import sys

from lab.blas import put_fast_blas_in_front


def keep_freed_memory():
    """Have glibc hand freed memory to the next array instead of returning it to Linux, which would clear every page again.

    MLX's CPU allocator is plain malloc: without this a sixth of a training step's CPU time went into page faults.
    """
    if platform.system() == "Linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # Source: glibc's malloc.h
        ctypes.CDLL(None).mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes
        ctypes.CDLL(None).mallopt(trim_threshold, 1 << 30)


BLAS = put_fast_blas_in_front(too_late="mlx.core" in sys.modules)
keep_freed_memory()

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
