"""What a conversion refuses before any work, and what it survives: odd places, failing disks, flags without a use."""

import dataclasses
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import convert_hyperclova
from lab import (
    building,
    checkpoints,
    conversion_plan,
    conversion_report,
    conversion_run,
    durable,
    explanations,
    hub,
    places,
)
from lab.cli import LabError, finish, sha256
from lab.consumed import Consumed
from tests import crashes
from tests.small_checkpoints import convert, flip, refused, write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def reason(check, *arguments, kind=LabError):
    with pytest.raises(kind) as caught:
        check(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("letters", [255, 245, 240])
def test_a_name_with_no_room_for_the_names_beside_it(tmp_path, letters):
    assert "choose a shorter one" in reason(places.refuse_place, tmp_path / ("a" * letters), tmp_path / "source")


@pytest.mark.parametrize("name", ["new\nline", "\x1b[2J", "\udcff", "\u2028"])
def test_a_name_that_no_message_can_hold(tmp_path, name):
    message = reason(places.refuse_place, tmp_path / name, tmp_path / "source")
    assert "no usable path" in message and message.isprintable()
    places.refuse_place(tmp_path / "빈 칸 '한글", tmp_path / "source")


@pytest.mark.parametrize(
    ("content", "message"),
    [("[" * 100_000, "other things in it"), ('{"flags": {"mlx_path": "m"}, "files": 5}', "notes")],
)
def test_a_summary_that_no_command_wrote(tmp_path, content, message):
    (tmp_path / places.SUMMARY).write_text(content)
    (tmp_path / "notes").touch()
    assert message in reason(places.refuse_existing, tmp_path, True)


def test_force_deletes_nothing_beside_a_model_whose_summary_lists_no_files(tmp_path):
    """Such are the embedded ones, and so a copy of them."""
    (tmp_path / places.SUMMARY).write_text('{"flags": {"mlx_path": "m"}}')
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        (tmp_path / name).touch()
    places.refuse_existing(tmp_path, True)
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters.safetensors").touch()
    (tmp_path / "new\nline").touch()
    message = reason(places.refuse_existing, tmp_path, True)
    assert "new\\nline" in message and message.isprintable()
    (tmp_path / "new\nline").unlink()
    assert "holds adapters, adapters.safetensors, which --force would delete" in reason(
        places.refuse_existing, tmp_path, True
    )


def test_what_the_finder_leaves_is_nothing(tmp_path):
    (tmp_path / ".DS_Store").touch()
    places.refuse_existing(tmp_path, False)


def test_the_source_under_another_spelling_is_still_the_source(tmp_path, monkeypatch):
    """Plays a disk that takes capital letters for small ones: there --force would have replaced the source."""
    for name in ("model", "Model"):
        (tmp_path / name).mkdir()
    places.refuse_place(tmp_path / "Model", tmp_path / "model")
    monkeypatch.setattr(Path, "samefile", lambda self, other: str(self).lower() == str(other).lower())
    for target in ("Model", "Model/inside"):
        assert "the source" in reason(places.refuse_place, tmp_path / target, tmp_path / "model")


def test_journal_and_names_are_synced_to_the_drive(tmp_path, monkeypatch):
    """What stands in the journal may cost the source its shards, so its folder's own name must last, too."""
    synced, full = set(), []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.add(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(durable, "F_FULLFSYNC", 51)
    monkeypatch.setattr(durable, "fcntl", lambda file, what: full.append(what), raising=False)
    with building.going_on(tmp_path / "new" / "model") as build:
        build.begin({"fingerprint": "one"})
        full.clear()
        build.say("shard", "a", {})
        assert full == [51]
    assert {tmp_path.stat().st_ino, (tmp_path / "new").stat().st_ino} <= synced


def written(build, content=b"weights"):
    """Fill a Build as a conversion does."""
    if not build.begin({"fingerprint": "one"}) or not build.complete:
        path = build.folder / "model.safetensors"
        path.write_bytes(content)
        facts = {"sha256": sha256(path), "bytes": len(content)}
        build.say("shard", path.name, facts)
        summary = {"flags": {"mlx_path": "model"}, "files": {path.name: facts}}
        building.write_json(build.folder / places.SUMMARY, summary)


@pytest.mark.parametrize("spoil", [lambda path: flip(path, 0), os.unlink, lambda path: os.truncate(path, 3)])
def test_a_folder_that_was_spoilt_before_its_move_is_not_moved(tmp_path, spoil):
    """Its summary came through the power cut, or the days since; what it tells of did not."""
    with building.going_on(tmp_path / "model") as build:
        written(build)
    with building.going_on(tmp_path / "model") as build:
        assert build.begin({"fingerprint": "one"}) and build.complete
    spoil(tmp_path / "model.partial" / "model.safetensors")
    with building.going_on(tmp_path / "model") as build:
        assert build.begin({"fingerprint": "one"}) and not build.complete
        assert not (build.folder / places.SUMMARY).exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_fails_at_any_step_is_one_line_and_the_next_run_ends_well(tmp_path, monkeypatch, there):
    target, old = tmp_path / "model", {places.SUMMARY, "model.safetensors"}

    def run():
        with building.going_on(target) as build:
            written(build)
            build.finish()

    for step in itertools.count(1):
        shutil.rmtree(target, ignore_errors=True)
        if there:
            run()
        with crashes.crashing(monkeypatch, step, error=errno.ENOSPC) as disk:
            try:
                run()
            except LabError as error:
                message = str(error)
                assert "No space left on device" in message and message.isprintable()
        if disk.done < step:
            break
        if there:
            kept = target if target.exists() else places.replaced_of(target)
            assert old <= {path.name for path in kept.iterdir()}, step  # the old result, or the new one
        run()
        assert {path.name for path in target.iterdir()} == old, step
        assert [path.name for path in tmp_path.iterdir()] == ["model"], step
    assert step > 20
    print(f"failed at each of {step - 1} steps")


def test_two_first_runs_in_one_new_folder(tmp_path):
    with building.going_on(tmp_path / "new" / "one"):
        with pytest.raises(LabError, match="stop"), building.going_on(tmp_path / "new" / "two"):
            raise LabError("stop")
        other = building.going_on(tmp_path / "deep" / "one")
        with pytest.raises(LabError, match="stop"), other:
            (tmp_path / "deep" / "two.partial").mkdir()
            raise LabError("stop")


def test_what_is_in_the_way_of_the_folder_in_the_making(tmp_path):
    """A link there would be moved as it is: the result would be a link to who knows where."""
    (tmp_path / "far").mkdir()
    partial = tmp_path / "model.partial"
    for make in (lambda: partial.symlink_to("far"), lambda: partial.symlink_to("nowhere"), partial.touch):
        make()
        assert f"{partial}: not from this command" in reason(
            places.refuse_place, tmp_path / "model", tmp_path / "source"
        )
        partial.unlink()


def test_what_a_hand_put_in_the_place_of_a_result_that_waits(tmp_path):
    """A run with --force was killed between its two renames; the old result must not be removed as replaced."""
    replaced = places.replaced_of(tmp_path / "model")
    for folder in (replaced, tmp_path / "model"):
        folder.mkdir()
    (replaced / places.SUMMARY).write_text('{"flags": {"mlx_path": "model"}}')
    assert "the result that waits" in reason(places.refuse_place, tmp_path / "model", tmp_path / "source")
    (tmp_path / "model").rmdir()
    places.refuse_place(tmp_path / "model", tmp_path / "source")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(404, "check the name"), (410, "check the name"), (429, "wait some minutes"), (503, "wait")],
)
def test_the_hub_s_answer_has_a_remedy_that_can_help(status, remedy):
    hub_errors, httpx2 = pytest.importorskip("huggingface_hub.errors"), pytest.importorskip("httpx2")
    request = httpx2.Request("GET", "http://localhost")
    trouble = hub_errors.HfHubHTTPError("no", response=httpx2.Response(status, request=request))
    with pytest.raises(LabError, match=remedy), explanations.explained("lab/model"):
        raise trouble


def test_an_endpoint_that_was_set_is_named(monkeypatch):
    """Port 9 of this machine: nobody answers there."""
    monkeypatch.setattr(explanations.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LabError, match="check the network and HF_ENDPOINT"), explanations.explained("lab/model"):
        raise ConnectionRefusedError("refused")


def test_a_token_that_no_header_can_hold(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "한글")
    assert "the token (HF_TOKEN) is none" in reason(hub.find_source, "lab/no-such-model")


def test_a_second_ctrl_c_does_not_change_the_exit_code(small):
    code = (  # hashing that takes a while, as of gigabytes; the second Ctrl-C comes while its thread ends
        "import signal, runpy, sys, time, threading, os\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from lab import conversion_run\n"
        "def check(*_):\n"
        "    threading.Thread(target=lambda: time.sleep(0.4)).start()\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(5)\n"
        "conversion_run.check_shard = check\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    flags = ["convert_hyperclova.py", "--hf-path", str(small), "--mlx-path", str(small.parent / "target")]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 75 and done.stderr.count("\n") == 1, (done.returncode, done.stderr)


@pytest.fixture
def small(tmp_path, tokenizer_files):
    shutil.copytree(tokenizer_files, tmp_path / "source")
    return write_checkpoint(tmp_path / "source")


def plan_of(source, *flags):
    args = convert_hyperclova.parse_args(["--hf-path", str(source.folder), *flags])
    return conversion_plan.make_plan(source, args), args


@pytest.mark.parametrize("kind", ["dangling", "fifo", "folder"])
@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "README.md"])
def test_what_travels_along_is_not_left_out_in_silence(small, capsys, name, kind):
    (small / name).unlink(missing_ok=True)
    {"dangling": lambda path: path.symlink_to("nowhere"), "fifo": os.mkfifo, "folder": os.mkdir}[kind](
        small / name
    )
    assert f"{small / name}: " in refused(capsys, small, "--dry-run")


def test_a_config_that_is_a_link_out(small, capsys):
    (small / "config.json").rename(small.parent / "config.json")
    (small / "config.json").symlink_to("../config.json")
    assert "config.json: a link that leads out of its folder" in refused(capsys, small, "--dry-run")


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        (["pytorch_model.bin"], "there is only pytorch_model.bin: use the checkpoint that has them"),
        (["model.gguf"], "there is only model.gguf"),
        (["consolidated.safetensors"], "there is only consolidated.safetensors"),
        ([ONE, "x.bin"], "model.safetensors.index.json is missing: download it again"),
        (["text/model.safetensors", "text/" + checkpoints.INDEX], "give the folder {}/text"),
        (
            ["b/model.safetensors", "a/" + checkpoints.INDEX, "c/x"],
            "folders inside it that hold a checkpoint: a; b",
        ),
        ([], "download it again"),
    ],
)
def test_a_folder_without_weights_says_what_is_there_instead(tmp_path, files, remedy):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    message = reason(checkpoints.read_checkpoint, tmp_path)
    assert remedy.format(tmp_path) in message and "neither" in message


def test_an_address_is_no_id():
    message = reason(hub.find_source, "https://huggingface.co/naver-hyperclovax/HyperCLOVAX-SEED-Think-14B")
    assert "by its id alone" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--verify", "--mlx-path", "x", "--dry-run", "--q-bits", "4"],
            "--dry-run, --q-bits: of no use with --verify",
        ),
        (["--verify", "--mlx-path", "x", "--consume-source"], "--consume-source: of no use with --verify"),
        (["--dry-run", "--output", "x"], "--output: of no use with --dry-run"),
        (["--no-quantize", "--q-bits", "4"], "--q-bits: of no use with --no-quantize"),
        (["--hf-path", ""], "--hf-path is empty"),
        (["--verify"], "--verify needs --mlx-path"),
    ],
)
def test_a_flag_that_would_be_ignored_is_bad_usage(capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        convert_hyperclova.parse_args(flags)
    assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("short", ["--c", "--consume", "--forc"])
def test_no_flag_is_guessed_from_its_beginning(capsys, short):
    """One of them deletes the source."""
    with pytest.raises(SystemExit) as caught:
        convert_hyperclova.parse_args(["--hf-path", "x", short])
    assert caught.value.code == 2 and f"unrecognized arguments: {short}" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told_before_the_work(small, capsys):
    (small.parent / "file").touch()
    for output in ("/dev/null", small.parent / "file" / "summary.json"):
        assert str(output) in refused(capsys, small, "--output", str(output))


@pytest.mark.parametrize(
    "output",
    ["target", "target.partial", "target.partial/s.json", "target.replaced.partial", "n" * 248, "source/s"],
)
def test_an_output_in_the_way_is_told_before_the_work(small, capsys, output):
    assert f"{small.parent / output}: " in refused(capsys, small, "--output", str(small.parent / output))
    assert [path.name for path in small.parent.iterdir()] == ["source"]


@pytest.mark.parametrize("absolute", [True, False])
def test_an_output_that_is_the_summary_itself(small, monkeypatch, absolute):
    monkeypatch.chdir(small.parent)
    output = (small.parent if absolute else Path()) / "target" / places.SUMMARY
    assert convert(small, "--output", str(output))[0] == 0


def test_an_output_replaces_a_summary_and_nothing_else(small, capsys):
    notes, copy = small.parent / "notes.json", small.parent / "copy.json"
    notes.write_text('{"mine": 1}', encoding="utf-8")
    assert "a file that no conversion wrote" in refused(capsys, small, "--output", str(notes))
    assert notes.read_text(encoding="utf-8") == '{"mine": 1}'
    for flags in ((), ("--force",)):
        code, target = convert(small, "--output", str(copy), *flags)
        assert code == 0 and copy.read_bytes() == (target / places.SUMMARY).read_bytes()


def test_a_target_beside_a_folder_that_is_not_there(small, capsys):
    flags = ["--hf-path", str(small), "--mlx-path", str(small.parent / "nowhere" / ".." / "model")]
    assert finish(convert_hyperclova.main, flags) == 0, capsys.readouterr().err
    assert (small.parent / "model" / places.SUMMARY).is_file()


@pytest.mark.parametrize("filled", [True, False])
def test_a_target_that_may_not_be_written_is_told_before_the_work(small, capsys, monkeypatch, filled):
    """The new result was in its place by then, the old one could not be removed. Played, for root may do all."""
    target = small.parent / "target"
    target.mkdir()
    if filled:
        convert(small, "--force")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != target and access(path, mode))
    capsys.readouterr()
    assert convert(small, "--force")[0] == 1
    assert "target: you may not read or write it; `chmod u+rwx` it" in capsys.readouterr().err
    assert not places.partial_of(target).exists()


def test_a_summary_that_may_not_be_read(small, capsys, monkeypatch):
    _, target = convert(small)
    capsys.readouterr()

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    assert finish(convert_hyperclova.main, ["--mlx-path", str(target), "--verify"]) == 1
    assert "summary.json: cannot be read (Permission denied); make it readable" in capsys.readouterr().err


def test_a_home_that_is_nobodys(small, capsys, monkeypatch):
    monkeypatch.chdir(small.parent)
    assert finish(convert_hyperclova.main, ["--mlx-path", "x" * 300, "--verify"]) == 1
    assert "no such file" in capsys.readouterr().err
    for flags in (
        ["--hf-path", "~nobody-here/x"],
        ["--hf-path", "x" * 300],
        ["--hf-path", str(small) + "y" * 300],
    ):
        assert finish(convert_hyperclova.main, [*flags, "--dry-run"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
    args = convert_hyperclova.parse_args(
        ["--hf-path", "x", "--mlx-path", "~nobody-here/x", "--output", "~/s.json"]
    )
    assert args.mlx_path == Path("~nobody-here/x") and args.output == Path.home() / "s.json"


@pytest.mark.parametrize(
    "address", ["", "nonsense", "ftp://x", "http://", "http://[::1", "http://localhost:99999999"]
)
def test_an_endpoint_that_is_no_address(address):
    command = [sys.executable, "convert_hyperclova.py", "--hf-path", "naver/x", "--dry-run"]
    environment = {**os.environ, "HF_ENDPOINT": address}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


def test_a_proxy_that_needs_another_package():
    command = [sys.executable, "convert_hyperclova.py", "--hf-path", "naver/x", "--dry-run"]
    environment = {**os.environ, "HTTPS_PROXY": "socks5://localhost:1", "HF_ENDPOINT": "https://localhost:9"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("error: naver/x: ") and done.stderr.count("\n") == 1
    assert "unset the proxy (HTTPS_PROXY, ALL_PROXY)" in done.stderr


@pytest.mark.parametrize("closed", ["1", "2", "both"])
def test_output_that_is_closed_ends_no_conversion(small, closed):
    """As `command >&-` and some schedulers start it: Python has no sys.stdout or sys.stderr then."""
    flags = ["--hf-path", str(small), "--mlx-path", str(small.parent / "target")]
    redirect = {"1": ">&-", "2": "2>&-", "both": ">&- 2>&-"}[closed]
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "convert_hyperclova.py", *flags]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (small.parent / "target" / places.SUMMARY).is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here: only Linux has it")
def test_a_full_disk_behind_the_output_is_not_taken_for_the_results(small):
    command = [
        sys.executable,
        "convert_hyperclova.py",
        "--hf-path",
        str(small),
        "--mlx-path",
        str(small.parent / "t"),
    ]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    wanted = "error: standard output: No space left on device; free the disk, or write elsewhere\n"
    assert (done.returncode, done.stderr) == (1, wanted)


def test_an_answer_that_the_terminals_encoding_lacks(small):
    flags = ["--hf-path", str(small), "--mlx-path", str(small.parent / "한글")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "convert_hyperclova.py", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "first tokens after '\\uc548\\ub155'" in done.stdout, done.stderr


def test_what_others_put_beside_a_model_in_the_making_is_not_listed_as_its_own(small, monkeypatch, capsys):
    """The Mac's Finder and network drives do, and change it later."""
    with monkeypatch.context() as patch:
        patch.setattr(conversion_run, "write_rest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert convert(small)[0] == 75
    partial = small.parent / "target.partial"
    (partial / ".DS_Store").touch()
    (partial / "@eaDir").mkdir()
    _, target = convert(small)
    assert not {".DS_Store", "@eaDir"} & json.loads((target / places.SUMMARY).read_text())["files"].keys()
    capsys.readouterr()
    assert finish(convert_hyperclova.main, ["--mlx-path", str(target), "--verify"]) == 3
    assert capsys.readouterr().err == f"error: {target}/@eaDir: not in summary.json; remove it\n"
    (target / "@eaDir").rmdir()
    assert finish(convert_hyperclova.main, ["--mlx-path", str(target), "--verify"]) == 0


def test_names_of_a_finished_result_that_are_a_users_own_stay(small, capsys):
    _, target = convert(small)
    for name in (places.PLAN, places.JOURNAL):
        (target / name).write_text("mine")
    assert convert(small)[0] == 1
    assert convert(small, "--force")[0] == 1 and "holds journal.jsonl, plan.json, which" in capsys.readouterr().err
    assert [(target / name).read_text() for name in (places.PLAN, places.JOURNAL)] == ["mine", "mine"]


def test_what_a_crash_leaves_in_a_finished_result_is_ours(small):
    _, target = convert(small)
    for name in (places.MARK, places.PLAN, places.JOURNAL):
        (target / name).touch()
    places.refuse_existing(target, True)
    assert convert(small, "--force")[0] == 0 and not (target / places.MARK).exists()


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "config.json", "tokenizer_config.json", checkpoints.INDEX]
)
@pytest.mark.parametrize("how", ["changes", "goes"])
def test_a_small_file_of_the_source_that_changes_meanwhile_is_noticed(small, monkeypatch, capsys, name, how):
    """Found after the shards, which are kept; the same command then makes the rest of what is there now."""
    path, rest = small / name, conversion_run.write_rest
    content = path.read_bytes()

    def change(*arguments):
        names = rest(*arguments)
        path.unlink() if how == "goes" else path.write_bytes(content + b"\n")
        return names

    with monkeypatch.context() as patch:
        patch.setattr(conversion_run, "write_rest", change)
        error = refused(capsys, small)
    assert f"{name}: changed while it was converted; leave it alone" in error
    path.write_bytes(content)
    (small / "LICENSE").write_text("Terms", encoding="utf-8")  # new, and goes along
    code, target = convert(small)
    assert code == 0 and "LICENSE" in json.loads((target / places.SUMMARY).read_text())["files"]


def test_ctrl_c_after_the_move_does_not_say_that_the_same_command_goes_on(small, monkeypatch, capsys):
    monkeypatch.setattr(conversion_report, "print_summary", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, target = convert(small)
    assert code == 75 and (target / places.SUMMARY).is_file()
    assert capsys.readouterr().err == "error: stopped; the result is whole and in its place\n"


def test_a_source_shard_that_went_away_in_the_middle_of_consuming(small):
    """Of the consumed ones the plan knows all, of this one nothing."""
    plan, args = plan_of(hub.Source(small))
    with building.going_on(small.parent / "target") as build:
        convert_hyperclova.begin(build, plan, None)
        build.say("consumed", ONE, {})
        for name in (ONE, TWO):
            (small / name).unlink()
        consumed = Consumed(build)
        message = reason(conversion_plan.make_plan, hub.Source(small), args, consumed)
        assert f"{TWO} not there, and still to be converted; download it again" in message and ONE not in message
        message = reason(conversion_plan.make_plan, hub.Source(small, "naver/x", "a" * 40), args, consumed)
        assert f"{TWO} not there" in message and "connect (and unset HF_HUB_OFFLINE)" in message


def test_a_source_that_cannot_be_consumed_is_told_before_the_work(small, capsys):
    own = os.geteuid()
    small.chmod(0o555)
    try:
        if own == 0:  # root writes everywhere but where no one does
            message = reason(convert_hyperclova.refuse_consuming, hub.Source(Path("/proc/self")))
        else:
            message = refused(capsys, small, "--consume-source")
    finally:
        small.chmod(0o755)
    assert "--consume-source: nothing can be deleted" in message
    convert_hyperclova.refuse_consuming(hub.Source(small))
    assert "source" in [path.name for path in small.parent.iterdir()]


def test_a_consumed_shard_that_has_another_content_on_the_hub_now(small):
    """Else the result would be of two commits, half of each."""
    digests = {path.name: sha256(path) for path in small.glob("*.safetensors")}
    source = hub.Source(small, revision="a" * 40, digests=digests)
    plan, _ = plan_of(source)
    with building.going_on(small.parent / "target") as build:
        convert_hyperclova.begin(build, plan, None)
        build.say("consumed", ONE, {})
    (small / ONE).unlink()
    later = dataclasses.replace(source, revision="b" * 40, digests={**digests, ONE: "0" * 64})
    with building.going_on(small.parent / "target") as build:
        consumed = Consumed(build)
        args = convert_hyperclova.parse_args(["--hf-path", str(small)])
        message = reason(
            convert_hyperclova.begin, build, conversion_plan.make_plan(later, args, consumed), consumed
        )
        assert f"{ONE} has changed" in message and f"add --revision {'a' * 40} and run" in message
        convert_hyperclova.begin(build, conversion_plan.make_plan(source, args, consumed), consumed)


def test_the_plan_of_a_source_that_is_consumed_in_part(small, capsys):
    """Without the journal it would say that the source is to be downloaded again."""
    plan, _ = plan_of(hub.Source(small))
    with building.going_on(small.parent / "target") as build:
        convert_hyperclova.begin(build, plan, None)
        build.say("consumed", ONE, {})
    (small / ONE).unlink()
    assert convert(small, "--dry-run")[0] == 0, capsys.readouterr().err
    assert "21 tensors taken" in capsys.readouterr().out


def test_a_plan_looks_and_changes_nothing_also_beside_a_run_at_work(small, capsys):
    target = small.parent / "target"
    with building.going_on(target) as build:
        convert_hyperclova.begin(build, plan_of(hub.Source(small))[0], None)
        (build.folder / places.JOURNAL).write_bytes(b'{"half of a line')
        building.write_json(build.folder / places.SUMMARY, {"flags": {"mlx_path": "x"}, "files": {"gone": {}}})
        before = {path.name: path.read_bytes() for path in build.folder.iterdir()}
        assert convert(small, "--dry-run")[0] == 0, capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in build.folder.iterdir()} == before
    assert convert(small)[0] == 0


def test_what_tells_two_plans_apart_may_be_new_in_the_second():
    """A folder in the making of an older version, say, whose config names no end tokens."""
    old, new = (
        {"config": {"a": 1}, "fingerprint": "1"},
        {"config": {"a": 1, "eos_token_id": 2}, "fingerprint": "2"},
    )
    rest = {"identities": {}, "made_with": {}}
    assert conversion_plan.differences({**old, **rest}, {**new, **rest}) == ["eos_token_id was none, is now 2"]


def test_other_settings_are_told_as_what_was_and_what_is(small):
    """Where a source is consumed in part it is they that the user has to give again."""
    source = hub.Source(small)
    old = plan_of(source, "--no-quantize", "--dtype", "float32")[0].record()
    new = plan_of(source, "--q-bits", "4")[0].record()
    four, eight = "4 bit in groups of 64", "8 bit in groups of 64"
    kind = "torch_dtype was float32, is now bfloat16"
    assert conversion_plan.differences(old, new) == [kind, f"quantization was none, is now {four}"]
    more = plan_of(source)[0].record()
    more["made_with"]["mlx"] = "0.1"
    found = conversion_plan.differences(new, {**more, "fingerprint": "other"})
    assert found == [
        f"quantization was {four}, is now {eight}",
        f"mlx was {new['made_with']['mlx']}, is now 0.1",
    ]


def test_with_consume_source_the_room_is_that_of_one_output_shards_sources(small, monkeypatch):
    """What an earlier run has converted and deleted is not asked for again."""
    monkeypatch.setattr(building, "SHARD_BYTES", 1)  # an output shard for each tensor
    plan, _ = plan_of(hub.Source(small, sizes={ONE: 100, TWO: 70}))
    for name in (ONE, TWO):
        (small / name).unlink()
    assert (plan.to_download(plan.shards, False), plan.to_download(plan.shards, True)) == (170, 100)
    last = dict([list(plan.shards.items())[-1]])
    assert plan.to_download(last, True) == plan.to_download(last, False) == 70
    assert plan.to_download({}, True) == plan.to_download({}, False) == 0


def test_the_plan_s_disk_is_what_the_conversion_asks_for(small, capsys, monkeypatch):
    """The download counts where it goes onto the same disk, all of it or a shard at a time."""
    path = small / ONE
    usage = shutil.disk_usage(small)  # other tests use the same disk meanwhile
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    free = usage.free
    source = hub.Source(small, sizes={ONE: free + 1})
    for flags, word in ((), "less with --consume-source"), (("--consume-source",), "(what one shard needs)"):
        plan, args = plan_of(source, "--mlx-path", str(small.parent / "target"), *flags)
        path.rename(small.parent / "away")
        conversion_report.print_disk(plan, args)
        (small.parent / "away").rename(path)
        out = capsys.readouterr().out
        assert "DOES NOT FIT" in out and word in out, out


def test_the_plan_tells_what_lies_at_its_place(small, capsys):
    assert convert(small)[0] == 0 and convert(small, "--dry-run")[0] == 0
    assert "--force overwrites it" in capsys.readouterr().out
    assert convert(small, "--dry-run", "--force")[0] == 0
    assert "place:" not in capsys.readouterr().out
    with building.going_on(small.parent / "other") as build:
        build.begin({"fingerprint": "one"})
    conversion_report.print_place(small.parent / "other", False)
    assert "other.partial is unfinished" in capsys.readouterr().out
    locked = Path("/proc/self") if os.geteuid() == 0 else small  # root writes everywhere else
    small.chmod(0o555)
    conversion_report.print_place(locked / "model", False)
    small.chmod(0o755)
    assert "cannot be written; choose another folder" in capsys.readouterr().out


def test_verify_finds_links_and_needs_the_source_it_is_told(small, capsys):
    _, target = convert(small)
    verify = ["--mlx-path", str(target), "--verify"]
    assert finish(convert_hyperclova.main, [*verify, "--hf-path", str(small.parent)]) == 1
    assert "none of the source's files is in it" in capsys.readouterr().err
    shutil.move(target / "model.safetensors", small.parent / "elsewhere")
    (target / "model.safetensors").symlink_to(small.parent / "elsewhere")
    assert finish(convert_hyperclova.main, verify) == 3
    assert "model.safetensors: a link that leads out of its folder" in capsys.readouterr().err
    (target / "new\nline").touch()
    assert finish(convert_hyperclova.main, verify) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert json.loads((target / places.SUMMARY).read_text())["files"]


def test_every_spoilt_checkpoint_of_the_table_is_refused_in_one_line():
    """bench/refused.py, whose table stands in docs/RESULTS.md."""
    from bench import refused as table

    said = {title: table.refusal(spoil) for title, spoil in table.CASES.items()}
    assert not [title for title, message in said.items() if message == "ACCEPTED" or not message.isprintable()]
