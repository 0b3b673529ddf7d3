"""Conversions that are stopped, changed under the hand, or eat their source."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import convert_hyperclova
from lab import building, conversion, conversion_check, conversion_plan, conversion_run, hub
from lab.cli import LabError, finish, sha256
from tests.small_checkpoints import (
    convert,
    edit_json,
    flip,
    load_all,
    refused,
    same,
)

ROOT = Path(__file__).resolve().parent.parent
ARGS = convert_hyperclova.parse_args([])
SHARD_FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def unfinished(source, monkeypatch, *flags):
    """Stop a conversion after its first shard, as Ctrl-C does; returns the folder in the making."""
    monkeypatch.setattr(building, "SHARD_BYTES", 50_000)
    say = building.Build.say

    def stop(build, kind, *rest):
        say(build, kind, *rest)
        if kind == "shard":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building.Build, "say", stop)
        assert convert(source, *flags)[0] == 75
    return source.parent / "target.partial"


def test_ctrl_c_says_that_the_same_command_goes_on(make_checkpoint, monkeypatch, capsys):
    source = make_checkpoint()
    partial = unfinished(source, monkeypatch)
    assert "the same command goes on" in capsys.readouterr().err and partial.is_dir()
    code, target = convert(source)
    assert code == 0 and "1 of 4 shards are there" in capsys.readouterr().out and not partial.exists()


def test_half_a_shard_does_not_take_the_room_that_the_next_run_needs(make_checkpoint, monkeypatch, capsys):
    """On a disk with room for the result and little more, after kill -9 in the middle of the second shard."""
    source = make_checkpoint()
    partial = unfinished(source, monkeypatch)
    (partial / "model-00002-of-00004.safetensors").write_bytes(bytes(30_000))
    real, plan = shutil.disk_usage(source), conversion_plan.make_plan(hub.find_source(source), ARGS)
    room = plan.output_bytes * building.FREE_SHARE + 10_000

    def tight(path):
        return real._replace(free=room - sum(file.stat().st_size for file in partial.glob("*.safetensors")))

    monkeypatch.setattr(shutil, "disk_usage", tight)
    assert convert(source)[0] == 0 and "1 of 4 shards are there" in capsys.readouterr().out


def test_a_dry_run_counts_what_an_unfinished_run_has_written(make_checkpoint, monkeypatch, capsys):
    def verdict():
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: real._replace(free=room))
            assert convert(source, "--dry-run")[0] == 0
        return capsys.readouterr().out.split("disk:   ")[1].splitlines()[0].split(": ")[1]

    source = make_checkpoint()
    real, plan = shutil.disk_usage(source), conversion_plan.make_plan(hub.find_source(source), ARGS)
    room = plan.output_bytes * building.FREE_SHARE - 20_000
    assert verdict() == "DOES NOT FIT"
    unfinished(source, monkeypatch)  # after a shard of up to 50,000 bytes
    capsys.readouterr()
    assert verdict() == "fits"


def test_a_disk_that_is_too_small_from_the_start_is_left_as_it_was(make_checkpoint, monkeypatch, capsys):
    source = make_checkpoint()
    before = sorted(source.parent.iterdir())
    real = shutil.disk_usage(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=1000))
    assert "of disk, 0.0 MB are free; free the disk" in refused(capsys, source)
    assert sorted(source.parent.iterdir()) == before


def test_no_thread_of_pythons_uses_mlx():
    """One that has can abort the process while Python ends: Ctrl-C gave 134 instead of 75."""
    code = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "from lab.conversion_run import import_tokenizers\n"
        "with ThreadPoolExecutor(1) as aside: aside.submit(import_tokenizers).result()\n"
        "assert 'transformers' in sys.modules\n"
        "sys.exit(any(name.split('.')[0] == 'mlx_lm' for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shard_damaged_since_is_written_again(make_checkpoint, by_mlx_lm, monkeypatch, capsys):
    source = make_checkpoint()
    partial = unfinished(source, monkeypatch)
    flip(next(partial.glob("model-00001*")), -1)
    code, target = convert(source)
    assert code == 0 and "damaged since it was written" in capsys.readouterr().out
    assert same(load_all(target), load_all(by_mlx_lm))


def test_a_changed_source_or_setting_starts_over(make_checkpoint, monkeypatch, capsys):
    source = make_checkpoint()
    unfinished(source, monkeypatch)
    shard = source / "model-00001-of-00002.safetensors"
    os.utime(shard, ns=(1, 1))
    unfinished(source, monkeypatch)
    assert "started over, for model-00001-of-00002.safetensors has changed" in capsys.readouterr().out
    code, target = convert(source, "--q-bits", "4")
    assert (
        code == 0
        and "quantization was 8 bit in groups of 64, is now 4 bit in groups of 64" in capsys.readouterr().out
    )
    assert json.loads((target / "config.json").read_text())["quantization"]["bits"] == 4


def test_a_source_that_changes_under_the_conversion(make_checkpoint, monkeypatch, capsys):
    source = make_checkpoint()
    check = conversion_check.check_shard

    def touch(*arguments):
        os.utime(source / "model-00001-of-00002.safetensors", ns=(1, 1))
        return check(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(conversion_run, "check_shard", touch)
        assert "changed while it was converted" in refused(capsys, source)
    assert convert(source)[0] == 0


def test_no_shard_made_of_wrong_bytes_is_recorded(make_checkpoint, monkeypatch):
    """As from the hub's cache: right size, wrong bytes, several output shards."""
    source = make_checkpoint("text-only")
    digests = {path.name: sha256(path) for path in source.glob("*.safetensors")}
    monkeypatch.setattr(building, "SHARD_BYTES", 50_000)
    flip(source / "model-00002-of-00002.safetensors", 60_000)
    args = convert_hyperclova.parse_args(["--hf-path", str(source)])
    plan = conversion_plan.make_plan(hub.Source(source, digests=digests), args)
    with building.going_on(source.parent / "target") as build:
        build.begin(plan.record())
        with pytest.raises(LabError, match="wrong bytes"):
            conversion_run.run(plan, build, args)
        made_of = [conversion_plan.sources_of(plan.shards[name]) for name in build.said("shard")]
    assert len(plan.shards) > 2 and SHARD_FILES[1] not in sum(made_of, [])


def test_two_runs_at_one_target(make_checkpoint, capsys):
    source = make_checkpoint()
    with building.going_on(source.parent / "target"):
        assert "another run is at work there" in refused(capsys, source)
    assert convert(source)[0] == 0


def test_consumed_shards_are_deleted_only_when_asked_for(make_checkpoint, by_mlx_lm, capsys):
    source = make_checkpoint()
    code, target = convert(source)
    assert code == 0 and len(list(source.glob("*.safetensors"))) == 2
    code, target = convert(source, "--consume-source", "--force")
    assert code == 0 and not list(source.glob("*.safetensors")) and (source / "config.json").is_file()
    assert same(load_all(target), load_all(by_mlx_lm))
    capsys.readouterr()
    assert finish(convert_hyperclova.main, ["--mlx-path", str(target), "--verify"]) == 0
    assert "6 of 8 source files hashed" in capsys.readouterr().out


def test_a_consumed_source_is_never_thrown_away_by_other_settings(make_checkpoint, monkeypatch, capsys):
    """hub layout: both source shards are needed to the end, so all is consumed with the last output shard."""
    source = make_checkpoint()
    monkeypatch.setattr(building, "SHARD_BYTES", 50_000)
    say = building.Build.say

    def stop(build, kind, *rest):
        say(build, kind, *rest)
        if kind == "consumed":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building.Build, "say", stop)
        assert convert(source, "--consume-source")[0] == 75
    consumed = next(name for name in sorted(os.listdir(source)) if name.endswith(".safetensors"))
    (source / consumed).unlink()  # the journal says so already
    capsys.readouterr()
    error = refused(capsys, source, "--q-bits", "4")
    assert "its source is consumed in part" in error and consumed in error
    flip(source.parent / "target.partial" / "model-00001-of-00004.safetensors", -1)
    error = refused(capsys, source, "--consume-source")
    assert "damaged, and its source is consumed" in error
    flip(source.parent / "target.partial" / "model-00001-of-00004.safetensors", -1)
    assert convert(source, "--consume-source")[0] == 0


def stopped_after(kind, monkeypatch, source, *flags):
    """Run the command until its journal holds a line of that kind, as Ctrl-C would stop it then."""
    say = building.Build.say

    def stop(build, said, *rest):
        say(build, said, *rest)
        if said == kind:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building.Build, "say", stop)
        assert convert(source, *flags)[0] == 75


def test_settings_that_change_no_shard_start_nothing_over(make_checkpoint, monkeypatch, capsys):
    """An end token that was mended meanwhile, or that a newer version of the lab finds: the consumed source is not asked for again."""
    source = make_checkpoint()
    monkeypatch.setattr(building, "SHARD_BYTES", 50_000)
    stopped_after("consumed", monkeypatch, source, "--consume-source")
    edit_json(source / "generation_config.json", eos_token_id=[3, 5, 7])
    code, target = convert(source, "--consume-source")
    out = capsys.readouterr()
    assert code == 0 and "going on with" in out.out, out.err
    ids = json.loads((target / "config.json").read_text())["eos_token_id"]
    assert 7 in ids and ids == json.loads((target / "generation_config.json").read_text())["eos_token_id"]


def test_a_result_that_waits_for_its_move_is_not_taken_for_that_of_other_settings(
    make_checkpoint, monkeypatch, capsys
):
    source = make_checkpoint()
    with monkeypatch.context() as patch:
        patch.setattr(building, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert convert(source)[0] == 75
    edit_json(source / "generation_config.json", eos_token_id=[3, 5, 7])
    capsys.readouterr()
    code, target = convert(source)
    assert "MB/s" not in capsys.readouterr().out  # no shard was left to do
    assert code == 0 and 7 in json.loads((target / "config.json").read_text())["eos_token_id"]
    assert convert_hyperclova.main(["--mlx-path", str(target), "--verify"]) == 0


def test_nothing_is_deleted_without_the_flag_whatever_was_before(make_checkpoint, monkeypatch):
    """A shard that is downloaded again after a run that consumed it stays."""
    source = make_checkpoint()
    shutil.copytree(source, source.parent / "copy")
    monkeypatch.setattr(building, "SHARD_BYTES", 50_000)
    stopped_after("consumed", monkeypatch, source, "--consume-source")
    for name in SHARD_FILES:
        shutil.copy2(source.parent / "copy" / name, source / name)
    assert convert(source)[0] == 0
    assert len(list(source.glob("*.safetensors"))) == 2


def test_a_shard_that_changes_after_its_hash_is_noticed(make_checkpoint, by_mlx_lm, monkeypatch, capsys):
    source = make_checkpoint("text-only")
    monkeypatch.setattr(building, "SHARD_BYTES", 50_000)
    whole, write = (source / SHARD_FILES[0]).read_bytes(), conversion.Engine.write

    def spoil(engine, path, steps):
        if path.name == "model-00002-of-00004.safetensors":
            flip(source / SHARD_FILES[0], -1)
        return write(engine, path, steps)

    with monkeypatch.context() as patch:
        patch.setattr(conversion.Engine, "write", spoil)
        assert "changed while it was converted" in refused(capsys, source)
    (source / SHARD_FILES[0]).write_bytes(whole)
    code, target = convert(source)
    assert code == 0 and same(load_all(target), load_all(by_mlx_lm))


def test_what_the_source_no_longer_carries_is_not_carried(make_checkpoint, capsys):
    """A file that fails the last check, then removed: the copy in the half-built folder goes, too."""
    source = make_checkpoint()
    (source / "tokenizer_config.json").write_text('{"tool_parser_type": "nosuch"}', encoding="utf-8")
    assert convert(source)[0] == 3 and "mlx-lm cannot load the result" in capsys.readouterr().err
    (source / "tokenizer_config.json").unlink()
    code, target = convert(source)
    assert code == 0 and not (target / "tokenizer_config.json").exists()
