"""Which BLAS serves MLX on a Linux CPU, and that everything works without a fast one."""

import os
import platform
import subprocess
import sys

import pytest

from lab import blas, device

linux = pytest.mark.skipif(platform.system() != "Linux", reason="the BLAS policy is for Linux")
PRODUCT = (
    "from lab import device; mx = device.mx; a = mx.arange(6, dtype=mx.float32).reshape(2, 3);"
    "print(device.describe()); print((a @ a.T).tolist())"
)


def in_a_new_process(program=PRODUCT, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@linux
def test_without_a_fast_blas_it_works_and_warns():
    line, product = in_a_new_process(LAB_BLAS="reference")
    assert "warning: slow BLAS" in line
    assert product == "[[5.0, 14.0], [14.0, 50.0]]"


@linux
def test_mlx_imported_first_keeps_its_own_blas_and_that_is_said():
    line, _ = in_a_new_process(f"import mlx.core; {PRODUCT}")
    assert "warning: slow BLAS" in line and "mlx was imported before lab.device" in line


@linux
def test_the_tests_themselves_have_the_fast_blas():
    # some test files import mlx before lab.device: once that gave the whole suite the slow one, and other last bits
    assert "mlx was imported before" not in device.describe()


def test_the_numbers_are_the_same_with_the_fast_one():
    assert in_a_new_process()[1] == in_a_new_process(LAB_BLAS="reference")[1]


@linux
def test_no_wheel_no_compiler_no_system_library_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(blas, "SHIM", tmp_path / "none.so")
    monkeypatch.setattr(blas.ctypes.util, "find_library", lambda name: None)
    monkeypatch.delenv("LAB_BLAS", raising=False)
    found = blas.put_fast_blas_in_front()
    assert not found.fast
    assert "apt-get install libopenblas0" in found.name


@linux
def test_a_shim_that_cannot_be_loaded_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.setattr(blas, "SHIM", tmp_path / "broken.so")
    monkeypatch.setattr(blas.ctypes.util, "find_library", lambda name: None)
    assert not blas.put_fast_blas_in_front().fast


@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/cc"])
def test_a_shim_that_cannot_be_built_is_a_warning(monkeypatch, tmp_path, capsys, compiler):
    monkeypatch.setattr(blas, "SHIM", tmp_path / "shim.so")
    monkeypatch.setattr(blas, "wheel_library", lambda: tmp_path / "libscipy_openblas.so")
    monkeypatch.setattr(blas.shutil, "which", lambda name: compiler)
    assert blas.build_shim() is None
    printed = capsys.readouterr().out
    assert printed.startswith("warning: no BLAS shim: ")
    assert printed.endswith(f"; remedy: {blas.REMEDY}\n")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(blas, "SHIM", tmp_path / "none" / "shim.so")
    monkeypatch.setattr(blas, "wheel_library", lambda: tmp_path / "libscipy_openblas.so")
    monkeypatch.setattr(blas.shutil, "which", lambda name: "/bin/false")
    assert blas.build_shim() is None
    assert (
        f"warning: no BLAS shim: [Errno 2] No such file or directory: '{tmp_path}/none/" in capsys.readouterr().out
    )


def test_outside_a_virtual_environment_nothing_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(blas, "SHIM", tmp_path / "shim.so")
    monkeypatch.setattr(blas.sys, "base_prefix", sys.prefix)
    assert blas.build_shim() is None
    assert f"{sys.prefix} is no virtual environment; remedy: `make setup` makes .venv" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_one_thread_inside_and_as_before_outside():
    """Counted by OpenBLAS itself; without OpenBLAS (macOS, CUDA, MLX's own) the context changes nothing."""
    import ctypes

    import lab.device  # noqa: F401  (loads the BLAS)
    from lab.blas import threads

    loaded = ctypes.CDLL(None)
    names = [name for name in ("scipy_openblas", "openblas") if hasattr(loaded, f"{name}_get_num_threads")]
    count = getattr(loaded, f"{names[0]}_get_num_threads") if names else lambda: 1
    before = count()
    with pytest.raises(KeyError), threads(1):
        assert count() == 1
        raise KeyError
    assert count() == before


def test_one_thread_gives_the_bits_of_all():
    """So answers are the same whether or not other work made the lab choose one thread."""
    mx = device.mx
    for rows, inner, columns in ((1, 512, 2048), (7, 128, 384), (64, 128, 2048), (5, 4096, 1), (200, 128, 128)):
        first, second = mx.random.normal((rows, inner)), mx.random.normal((inner, columns))
        many = (first @ second).tolist()
        with blas.threads(1):
            assert (first @ second).tolist() == many
