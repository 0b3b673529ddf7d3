"""A fast BLAS in front of MLX's own on a Linux CPU:  python -m lab.blas  builds what that needs and says what is used.

The mlx-cpu wheel links reference BLAS (about 3 GFLOP/s float32 on 2 cores; OpenBLAS gives 50 to 90). A library loaded
with RTLD_GLOBAL before mlx wins the look-up of cblas_?gemm. macOS (Accelerate) and CUDA need nothing of this.
"""

import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REMEDY = "`make setup` with a C compiler present, or `apt-get install libopenblas0`"
SHIM = Path(sys.prefix) / "lib" / "lab-blas-shim.so"
GEMM_SOURCE = """
#define ARGS int order, int ta, int tb, int m, int n, int k
#define FORWARD(name, scalar, T) \\
  void scipy_cblas_##name(ARGS, scalar alpha, const T *a, int lda, const T *b, int ldb, scalar beta, T *c, int ldc); \\
  void cblas_##name(ARGS, scalar alpha, const T *a, int lda, const T *b, int ldb, scalar beta, T *c, int ldc) \\
  { scipy_cblas_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); }
FORWARD(sgemm, float, float)
FORWARD(dgemm, double, double)
FORWARD(cgemm, const void *, void)
"""


@dataclass(frozen=True)
class Blas:
    """Which BLAS serves MLX: `name` for people, `fast` or not."""

    name: str
    fast: bool


def wheel_library():
    """The path of the scipy-openblas32 wheel's library, or None where the wheel is not installed."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("lib/libscipy_openblas.so"), None)


def build_shim():
    """Compile the three-function shim that gives the wheel's OpenBLAS the names MLX asks for.

    Returns its path. None, with the reason printed, where it cannot be built: the lab works without, slowly.
    """
    if sys.prefix == sys.base_prefix:
        print(f"warning: no BLAS shim: {sys.prefix} is no virtual environment; remedy: `make setup` makes .venv")
        return None
    library, compiler = wheel_library(), shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if library is None or compiler is None:
        return None
    try:
        with tempfile.TemporaryDirectory(dir=SHIM.parent) as folder:
            _compile(compiler, library, Path(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: no BLAS shim: {error}; remedy: {REMEDY}")
        return None
    return SHIM


def _compile(compiler, library, folder):
    source, built = folder / "shim.c", folder / "shim.so"
    source.write_text(GEMM_SOURCE, encoding="utf-8")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", built, source]
    link = [f"-L{library.parent}", "-lscipy_openblas", f"-Wl,-rpath,{library.parent}"]
    subprocess.run([*map(str, command), *link], check=True)
    os.replace(built, SHIM)


def put_fast_blas_in_front(too_late=False):
    """Load the best BLAS at hand so that MLX, imported after this, uses it; returns a Blas.

    `too_late` says that MLX was imported before: its look-ups are made, and it keeps its own.

    A system OpenBLAS first, else the wheel behind its shim, else MLX's own (slow) with the remedy in its name.
    """
    if platform.system() != "Linux":
        return Blas("Accelerate", True)
    if any(d.name.startswith("mlx-cuda") for d in importlib.metadata.distributions()):
        return Blas("cuBLAS", True)
    if os.environ.get("LAB_BLAS") == "reference":  # for bench/ and tests: MLX as it is installed
        return Blas("MLX's own reference BLAS (LAB_BLAS=reference)", False)
    if too_late:
        return Blas(
            "MLX's own reference BLAS, since mlx was imported before lab.device; remedy: import that first", False
        )
    system = ctypes.util.find_library("openblas")
    for path, name in ((system, f"system {system}"), (SHIM, "OpenBLAS of scipy-openblas32")):
        if path and (path is system or path.exists()):
            try:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError:  # a shim whose wheel went away: the next source may still do
                continue
            return Blas(name, True)
    return Blas(f"MLX's own reference BLAS, some 20 times slower; remedy: {REMEDY}", False)


@contextmanager
def threads(number):
    """OpenBLAS computes with `number` threads inside; nothing changes where another BLAS serves. Same bits either way.

    Small products gain nothing from a second thread, and where other work has the cores they wait for it: a decoding step
    of the embedded model took 466 ms of CPU with two threads beside ten busy processes, 9 ms with one.
    """
    loaded = ctypes.CDLL(None)
    prefix = next(
        (name for name in ("scipy_openblas", "openblas") if hasattr(loaded, f"{name}_set_num_threads")), None
    )
    if prefix is None:
        yield
        return
    before = getattr(loaded, f"{prefix}_get_num_threads")()
    choose = getattr(loaded, f"{prefix}_set_num_threads")
    choose(number)
    try:
        yield
    finally:
        choose(before)


if __name__ == "__main__":
    if platform.system() == "Linux":
        build_shim()
    print(f"BLAS: {put_fast_blas_in_front().name}")
