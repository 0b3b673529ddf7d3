"""How a command ends when what reads its output goes away, or where it cannot write."""

import os
import subprocess
import sys

import pytest

from lab.cli import LabError, check_place, finish, write_atomically

LONG = "for number in range(100000): print(number, flush=True)"
SHORT = "print('a few words')"


@pytest.mark.parametrize("body", [LONG, SHORT])
def test_a_closed_pipe_is_not_done(body):
    program = f"import sys; from lab.cli import finish\ndef main(argv=None):\n    {body}\nsys.exit(finish(main))"
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


NO_ROOM = "error: standard output: No space left on device; free the disk, or write elsewhere\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here: only Linux has it")
@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("print('said')", 1, NO_ROOM),
        ("print('said' * 100_000)", 1, NO_ROOM),
        ("import argparse; argparse.ArgumentParser().parse_args(['--help'])", 1, NO_ROOM),
        ("sys.stdout.write('said'); raise LabError('wrong; mend it')", 1, "error: wrong; mend it\n"),
        ("sys.stdout.write('said'); raise KeyboardInterrupt('go on')", 75, "error: stopped by Ctrl-C; go on\n"),
    ],
)
def test_a_disk_that_is_too_full_for_what_is_printed_is_one_line(body, code, said, unbuffered):
    program = "import sys; from lab.cli import finish, LabError\n"
    program += f"def main(argv=None):\n    {body}\nsys.exit(finish(main))"
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, *unbuffered, "-c", program]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered)
        if unbuffered and "--help" in body:  # argparse passes over it
            code, said = 0, ""
        elif unbuffered and "write('said')" in body:  # it fails there, before the rest is come to
            code, said = 1, NO_ROOM
        assert (done.returncode, done.stderr) == (code, said)
        if not unbuffered:
            assert subprocess.run(command, stdout=full, stderr=full, env=buffered).returncode == code


@pytest.mark.parametrize("reader", ["/dev/full", "closed pipe"])
def test_a_bug_keeps_its_traceback_whatever_becomes_of_the_output(reader):
    program = "import sys; from lab.cli import finish\n"
    program += "def main(argv=None):\n    print('said'); open('/nonexistent/x')\nsys.exit(finish(main))"
    if reader == "/dev/full":
        if not os.path.exists(reader):
            pytest.skip("no /dev/full here: only Linux has it")
        writing = os.open(reader, os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writing)
    assert done.returncode == 1 and "No such file or directory: '/nonexistent/x'" in done.stderr, done.stderr
    assert "standard output" not in done.stderr and "Exception ignored" not in done.stderr


def test_with_all_streams_closed_no_file_becomes_the_output(tmp_path):
    """The first file that is opened has the lowest free number, and C libraries write their warnings to 2."""
    program = (
        "import os, sys; from lab.cli import finish\n"
        "def main(argv=None):\n"
        "    print('said'); print('said', file=sys.stderr)\n"
        "    with open('result', 'w') as file:\n"
        "        os.write(1, b'noise'); os.write(2, b'noise'); file.write('result')\n"
        "sys.exit(finish(main))"
    )
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    assert subprocess.run(shell, cwd=tmp_path, env=environment).returncode == 0
    assert (tmp_path / "result").read_text() == "result"


def test_korean_in_a_bare_c_locale():
    program = "import sys; from lab.cli import finish\nsys.exit(finish(lambda argv: print('\\uc548\\ub155')))"
    bare = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment = {**os.environ, **bare}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "\\uc548\\ub155\n"), done.stderr


def test_an_error_of_another_file_stays_a_bug():
    def main(argv=None):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        finish(main)


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("notes", encoding="utf-8")
    with pytest.raises(LabError, match="page.html: cannot write"):
        write_atomically(tmp_path / "file/page.html", "text")


def test_a_pipe_or_a_device_is_never_replaced_by_a_file(tmp_path):
    """Root could lose /dev/null for every process: a file written by rename takes the place of what is there."""
    os.mkfifo(tmp_path / "pipe")
    for writes in (check_place, lambda path: write_atomically(path, "text")):
        with pytest.raises(LabError, match="pipe: no regular file; name one, or leave the flag out"):
            writes(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(LabError, match="/dev/nowhere: no regular file"):
        check_place("/dev/nowhere")


def test_a_place_is_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("notes", encoding="utf-8")
    check_place(tmp_path / "new/folders/report.json")
    check_place(tmp_path / "file")
    assert not (tmp_path / "new").exists()
    with pytest.raises(LabError, match="file is a file; choose another folder"):
        check_place(tmp_path / "file/report.json")
    with pytest.raises(LabError, match="a folder; name a file in it"):
        check_place(tmp_path)
    with pytest.raises(LabError, match="what is asked is read from it"):
        check_place(tmp_path / "new/../file", [tmp_path / "other", tmp_path / "file"])


def test_ctrl_c_says_how_to_go_on_where_something_was_kept(run):
    def kept(argv):
        raise KeyboardInterrupt("3 of 9 answers are kept; --resume goes on")

    def bare(argv):
        raise KeyboardInterrupt

    code, _, error = run(kept)
    assert (code, error) == (75, "error: stopped by Ctrl-C; 3 of 9 answers are kept; --resume goes on\n")
    assert run(bare)[2] == "error: stopped by Ctrl-C; run the same command to start again\n"
