"""The Makefile: the commands of both profiles, folders by knowledge file, what is old when, what clean leaves."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

STAGES = {  # in the order in which they are made, with the file whose change makes them old
    "models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit/summary.json": "models/HyperCLOVAX-SEED-Think-Tiny/config.json",
    "data_solverx_cpt/summary.json": "solverx_knowledge.jsonl",
    "data_solverx_sft/summary.json": "configs/data.yaml",
    "adapters_solverx_cpt_tiny/summary.json": "configs/tiny/cpt.yaml",
    "adapters_solverx_sft_tiny/summary.json": "configs/tiny/sft.yaml",
    "runs/tiny/report.json": "data_general/python.yaml",
}
SETTINGS = ("PROFILE", "KNOWLEDGE", "PYTHON", "SYSTEM_PYTHON", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")


@pytest.fixture
def tree(tmp_path):
    """A copy of what Make reads, all of one old time, with no stage made."""
    for name in ("Makefile", "solverx_knowledge.jsonl", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("configs", "data_general"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "models/HyperCLOVAX-SEED-Think-Tiny").mkdir(parents=True)
    (tmp_path / "models/HyperCLOVAX-SEED-Think-Tiny/config.json").touch()
    for path in tmp_path.rglob("*"):
        os.utime(path, (1_000_000, 1_000_000))
    return tmp_path


def make(tree, *arguments, path=None):
    """Run make in `tree`, with nothing inherited from a make that runs these tests."""
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    environment["PATH"] = path or environment["PATH"]
    return subprocess.run(["make", *arguments], cwd=tree, env=environment, capture_output=True, text=True)


def commands(tree, *arguments):
    """What `make -n` prints with the venv left out, one command a line."""
    done = make(tree, "-n", "PYTHON=python3", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\\\n  ", "").splitlines()


def made(tree, seconds=2_000_000):
    """Touch every stage's file in order, a second apart, as a finished `make sft` leaves them."""
    for second, name in enumerate(STAGES):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{\n "flags": {\n  "knowledge": "solverx_knowledge.jsonl"\n }\n}\n')
        os.utime(path, (seconds + second, seconds + second))


def chain(profile, source, model):
    """The commands of `make sft` in a fresh clone."""
    cpt, sft = f"adapters_solverx_cpt_{profile}", f"adapters_solverx_sft_{profile}"
    report = f"runs/{profile}/report.json"
    train = f"python3 train_with_early_stopping.py -c configs/{profile}/"
    return [
        f"python3 convert_hyperclova.py --hf-path {source} --mlx-path {model} --q-bits 8 --q-group-size 64 --force",
        "python3 prepare_solverx_cpt_data.py --knowledge solverx_knowledge.jsonl --output-dir data_solverx_cpt",
        f"{train}cpt.yaml --model {model} --train --data data_solverx_cpt --adapter-path {cpt} --resume --overwrite",
        "python3 prepare_solverx_sft_data.py -c configs/data.yaml --knowledge solverx_knowledge.jsonl"
        " --output-dir data_solverx_sft",
        f"{train}sft.yaml --model {model} --train --data data_solverx_sft"
        f" --resume-adapter-file {cpt}/adapters.safetensors --adapter-path {sft} --resume --overwrite",
        f"python3 compare_hcx_stages.py --model {model} --knowledge solverx_knowledge.jsonl"
        f" --adapter-path base cpt={cpt} sft={sft} --output {report} --profile {profile} --no-table",
        f"python3 compare_hcx_stages.py --report {report}",
    ]


@pytest.mark.parametrize("profile, size", [("tiny", "Tiny"), ("hcx", "32B")])
def test_a_fresh_clone_runs_exactly_the_chain(tree, profile, size):
    source = f"models/HyperCLOVAX-SEED-Think-{size}"
    assert commands(tree, "sft", f"PROFILE={profile}") == chain(profile, source, f"{source}-Text-8bit")


def test_help_is_the_default_and_lists_every_target_of_the_lab(tree):
    done = make(tree)
    listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")]
    wanted = "help setup data convert cpt sft verify claims report test crashtest test-reference lint doctor clean"
    wanted += " tiny-model no-replay forgetting kmmlu gemma compare-tuning"
    assert sorted(listed) == sorted(wanted.split())


@pytest.mark.parametrize(
    "setting, words",
    [
        ("PROFILE=big", "PROFILE=big: no such profile; there are: gemma gemma9b hcx tiny"),
        ("KNOWLEDGE=a/b", "a/b: no such file"),
        ("KNOWLEDGE=my facts.jsonl", "KNOWLEDGE=my facts.jsonl: make takes no path with blanks"),
    ],
)
def test_a_wrong_setting_is_one_line(tree, setting, words):
    done = make(tree, "sft", setting)
    assert done.returncode != 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr


def test_an_old_python_is_one_line_before_anything_is_made(tree):
    done = make(tree, "sft", "SYSTEM_PYTHON=false")
    assert len(done.stderr.splitlines()) == 1 and "needs Python 3.11" in done.stderr
    assert not (tree / ".venv").exists()


def test_another_company_has_folders_of_its_own(tree):
    (tree / "in").mkdir()
    shutil.copy(tree / "solverx_knowledge.jsonl", tree / "in/acme.jsonl")
    printed = "\n".join(commands(tree, "sft", "KNOWLEDGE=in/acme.jsonl"))
    for stage in ("cpt", "sft"):
        assert f"--output-dir data_acme_{stage}" in printed
        assert f"--data data_acme_{stage}" in printed and f"--adapter-path adapters_acme_{stage}_tiny" in printed
    assert "--output runs/tiny-acme/report.json" in printed and "--knowledge in/acme.jsonl" in printed
    assert "_solverx_" not in printed.replace("prepare_solverx_", "") and "solverx_knowledge" not in printed


def test_finished_stages_are_left_alone(tree):
    made(tree)
    table = ["python3 compare_hcx_stages.py --report runs/tiny/report.json"]
    assert commands(tree, "sft") == table
    judge, render = "python3 check_claims.py --run runs/tiny", "python3 render_report.py --run runs/tiny"
    assert commands(tree, "claims") == [judge]
    assert commands(tree, "report") == [f"{judge} > /dev/null || [ $? -eq 3 ]", render]
    assert make(tree, "-q", "PYTHON=python3", "verify", "data", "convert", "cpt").returncode == 0


def test_a_new_venv_or_new_code_makes_no_stage_old(tree):
    made(tree)
    for name in (".venv/.installed", "train_with_early_stopping.py", "lab/training.py"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    assert make(tree, "-q", "verify").returncode == 0


@pytest.mark.parametrize(
    "changed, again",
    [
        ("models/HyperCLOVAX-SEED-Think-Tiny/config.json", ["convert", "train", "train", "compare"]),
        ("solverx_knowledge.jsonl", ["prepare", "train", "prepare", "train", "compare"]),
        ("data_general/python.yaml", ["prepare", "train", "compare"]),
        ("configs/data.yaml", ["prepare", "train", "compare"]),
        ("configs/tiny/cpt.yaml", ["train", "train", "compare"]),
        ("configs/tiny/sft.yaml", ["train", "compare"]),
    ],
)
def test_what_changes_is_made_again_with_all_that_follows(tree, changed, again):
    made(tree)
    os.utime(tree / changed, (3_000_000, 3_000_000))
    assert [line.split()[1].split("_")[0] for line in commands(tree, "verify")] == again


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_from_there(tree, stage):
    """A stage without its summary is not done; its folder alone means nothing."""
    made(tree)
    (tree / stage).unlink()
    printed = commands(tree, "verify")
    assert os.path.dirname(stage) in printed[0] and "compare_hcx_stages.py" in printed[-1]


def test_the_published_checkpoint_may_be_deleted_once_converted(tree):
    made(tree)
    shutil.rmtree(tree / "models/HyperCLOVAX-SEED-Think-Tiny")
    assert make(tree, "-q", "PYTHON=python3", "verify").returncode == 0


def test_a_file_of_the_same_name_in_another_folder_is_not_taken_for_made(tree):
    made(tree)
    (tree / "in").mkdir()
    shutil.copy2(tree / "solverx_knowledge.jsonl", tree / "in")
    printed = commands(tree, "data", "KNOWLEDGE=in/solverx_knowledge.jsonl")
    assert [line.split()[1] for line in printed] == ["prepare_solverx_cpt_data.py", "prepare_solverx_sft_data.py"]


def point(name, data=None):
    """The command that trains a point of the forgetting experiment."""
    sft = chain("tiny", "", "models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit")[4].replace(
        "tiny/sft.", "tiny/sft_replay."
    )
    data = data or f"data_solverx_sft_replay_{name}"
    return sft.replace("data_solverx_sft", data).replace("_solverx_sft_tiny", f"_solverx_sft_replay_{name}_tiny")


def test_no_replay_is_the_point_without_general_rows(tree):
    made(tree)
    printed = commands(tree, "no-replay")
    assert "--replay 0 --output-dir data_solverx_sft_replay_0" in printed[0]
    assert printed[1] == point("0")
    assert "no-replay=adapters_solverx_sft_replay_0_tiny --output runs/tiny/no_replay.json" in printed[2]


def test_forgetting_trains_every_share_but_the_default_and_measures_all(tree):
    made(tree)
    printed = commands(tree, "forgetting")
    trained = [line for line in printed if "train_with_early_stopping" in line]
    self_data = "data_solverx_sft_replay_self_50_tiny"
    assert trained == [point("0"), point("10"), point("25"), point("75"), point("self_50", self_data)]
    shares = [line.split("--replay ")[1].split()[0] for line in printed if "--replay " in line]
    assert shares == ["0", "0.1", "0.25", "0.75"]
    asked = next(place for place, line in enumerate(printed) if "prepare_replay_data.py" in line)
    assert printed[asked].endswith("--output-dir data_solverx_replay_tiny")
    assert printed[asked + 1].endswith(
        f"--replay-file data_solverx_replay_tiny/train.jsonl --output-dir {self_data}"
    )
    measured = printed[-2]
    assert "--output runs/tiny/forgetting.json --default replay-50 --adapter-path base" in " ".join(
        measured.split()
    )
    assert (
        "replay-50=adapters_solverx_sft_tiny " in measured
        and "replay-75=adapters_solverx_sft_replay_75_tiny" in measured
    )
    assert "self-50=adapters_solverx_sft_replay_self_50_tiny" in measured


def test_forgetting_follows_the_default_share(tree):
    made(tree)
    data = (tree / "configs/data.yaml").read_text().replace("replay: 0.5\n", "replay: 0.25\n")
    (tree / "configs/data.yaml").write_text(data)
    printed = " ".join(" ".join(commands(tree, "forgetting")).split())
    assert "--default replay-25 --adapter-path base replay-25=adapters_solverx_sft_tiny replay-0=" in printed
    assert "self-25=adapters_solverx_sft_replay_self_25_tiny" in printed and "--replay 0.5 " in printed


@pytest.mark.parametrize("profile", ["tiny", "hcx"])
def test_a_points_settings_are_those_of_sft_but_for_its_length(profile):
    from lab.general import load_yaml

    point, sft = (load_yaml(ROOT / f"configs/{profile}/{name}.yaml") for name in ("sft_replay", "sft"))
    length = {"iters", "epochs", "lr_schedule", "warmup", "final_learning_rate"}
    kept = [{key: value for key, value in settings.items() if key not in length} for settings in (point, sft)]
    assert kept[0] == kept[1]
    assert "epochs" in point and "iters" not in point
    if "lr_schedule" in sft:
        peak, _, end = sft["lr_schedule"]["arguments"]
        assert (point["learning_rate"], point["final_learning_rate"]) == (peak, end)
        assert point["warmup"] == sft["lr_schedule"]["warmup"]


@pytest.fixture(scope="module")
def sequences_at_the_default_share(tmp_path_factory):
    """How many sequences SFT trains: each answer of a dialogue is one."""
    import prepare_solverx_sft_data
    from lab.records import read_jsonl

    folder = tmp_path_factory.mktemp("sft")
    prepare_solverx_sft_data.main(["-c", str(ROOT / "configs/data.yaml"), "--output-dir", str(folder)])
    turns = [row.get("messages", [{"role": "assistant"}]) for _, row in read_jsonl(folder / "train.jsonl")]
    return sum(turn["role"] == "assistant" for row in turns for turn in row)


@pytest.mark.parametrize("profile", ["tiny", "hcx"])
def test_a_point_at_the_default_share_is_as_long_as_sft(profile, sequences_at_the_default_share):
    from lab.epochs import updates_of
    from lab.general import load_yaml

    point, sft = (load_yaml(ROOT / f"configs/{profile}/{name}.yaml") for name in ("sft_replay", "sft"))
    batches = -(-sequences_at_the_default_share // point["batch_size"])
    assert updates_of(point["epochs"], batches, 1) == sft["iters"]


@pytest.mark.parametrize(
    "system, nvidia_smi, build",
    [
        ("Darwin", "exit 1", "mlx"),
        ("Linux", "exit 9", "mlx[cpu]"),
        ("Linux", "echo '| Driver Version: 470.82  CUDA Version: 11.4 |'", "mlx[cpu]"),
        ("Linux", "echo '| Driver Version: 550.54  CUDA Version: 12.4 |'", "mlx[cuda12]"),
        ("Linux", "echo '| Driver Version: 590.44  CUDA Version: 13.1 |'", "mlx[cuda13]"),
        ("Linux", "echo '| KMD Version: 595.1  CUDA UMD Version: 13.2 |'", "mlx[cuda13]"),
    ],
)
def test_setup_takes_the_build_of_mlx_for_the_machine(tree, system, nvidia_smi, build):
    """`uname` and `nvidia-smi` are stand-ins for machines that are not here."""
    (tree / "bin").mkdir()
    for name, body in (("uname", f"echo {system}"), ("nvidia-smi", nvidia_smi)):
        (tree / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tree / "bin" / name).chmod(0o755)
    done = make(tree, "-n", "setup", path=f"{tree / 'bin'}:{os.environ['PATH']}")
    assert f"-r requirements.txt '{build}'" in done.stdout


def test_clean_says_what_it_removes_and_keeps_models_and_general_data(tree):
    made(tree)
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere/adapters.safetensors").touch()
    (tree / "adapters_linked").symlink_to("elsewhere")
    (tree / "adapters_notes.txt").touch()
    points = {"data_solverx_sft_replay_10", "data_solverx_replay_tiny", "adapters_solverx_sft_replay_10_tiny"}
    for folder in points:
        (tree / folder).mkdir()
    kept = {"Makefile", "models", "data_general", "configs", "elsewhere", "adapters_notes.txt"}
    done = make(tree, "clean")
    removed = {line.split()[1] for line in done.stdout.splitlines()}
    stages = {"data_solverx_cpt", "data_solverx_sft", "adapters_solverx_cpt_tiny", "adapters_solverx_sft_tiny"}
    assert removed == stages | points | {"runs", "adapters_linked"}
    assert kept <= set(os.listdir(tree)) and not removed & set(os.listdir(tree))
    assert (tree / "models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit/summary.json").exists()
    assert (tree / "elsewhere/adapters.safetensors").exists() and list((tree / "data_general").glob("*.yaml"))


def test_kmmlu_takes_the_sample_the_hub_or_a_folder(tree):
    made(tree)
    adapters = "base cpt=adapters_solverx_cpt_tiny sft=adapters_solverx_sft_tiny"
    model = "models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit"
    *asked, note = commands(tree, "kmmlu")
    assert note == "printf '%s\\n' 'data_kmmlu_sample' > runs/tiny/kmmlu.flags"
    assert asked == [
        "python3 prepare_kmmlu_sample.py --output-dir data_kmmlu_sample",
        f"python3 evaluate_kmmlu_8bit.py --model {model} --adapter-path {adapters}"
        " --data-dir data_kmmlu_sample  --output runs/tiny/kmmlu.json",
    ]
    line, _ = commands(tree, "kmmlu", "KMMLU_DATA=mine", "KMMLU_FLAGS=--subset Law --shots 5")
    assert "--data-dir mine --subset Law --shots 5 --output runs/tiny/kmmlu.json" in line
    *_, line, _ = commands(tree, "kmmlu", "PROFILE=hcx")
    assert "evaluate_kmmlu_8bit.py" in line and "--data-dir" not in line and "sample" not in line
    assert "--output runs/hcx/kmmlu.json" in line


def test_kmmlu_asked_otherwise_is_measured_again(tree):
    """Flags are no files: without a note of them `make kmmlu KMMLU_FLAGS=...` would do nothing, in silence."""
    made(tree)
    for name in ("data_kmmlu_sample/summary.json", "runs/tiny/kmmlu.json"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    flags = "KMMLU_FLAGS=--subset 'Applied Science' \"Law\""
    assert "evaluate" not in "".join(commands(tree, "kmmlu", flags))  # made by hand: nobody knows how
    (tree / "runs/tiny/kmmlu.flags").write_text("data_kmmlu_sample\n")
    assert "evaluate" not in "".join(commands(tree, "kmmlu"))
    assert "evaluate" in "".join(commands(tree, "kmmlu", "KMMLU_DATA=mine"))
    *_, line, note = commands(tree, "kmmlu", flags)
    assert "--subset 'Applied Science' \"Law\" --output" in line
    (tree / "runs/tiny/kmmlu.flags").write_text(note.split("'")[3] + "\n")
    assert "evaluate" not in "".join(commands(tree, "kmmlu", flags))
    assert "evaluate" in "".join(commands(tree, "kmmlu"))


def test_ranks_and_hostfile_launch_the_training_stages_alone(tree):
    for settings, launch in (
        (["RANKS=2"], "--ranks 2"),
        (["HOSTFILE=hosts.json", "RANKS=2"], "--hostfile hosts.json"),
    ):
        lines = commands(tree, "sft", *settings)
        launched = [line for line in lines if "lab.launch" in line]
        start = f"python3 -m lab.launch {launch} -- python3 train_with_early_stopping.py -c configs/tiny/"
        assert [line.startswith(start) for line in launched] == [True, True]
        assert len([line for line in lines if "train_with_early_stopping.py" in line]) == 2
    assert commands(tree, "sft", "RANKS=1") == commands(tree, "sft")
