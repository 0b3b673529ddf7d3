"""Make's Gemma warm-up: its chain on the embedded and the real model, what is old when, faults in one line."""

import os
import shutil

import pytest

from tests.test_makefile import commands, make, tree  # noqa: F401  (tree is a fixture)

MODELS = {"gemma": "models/Gemma-2-Tiny", "gemma9b": "google/gemma-2-9b-it"}
ADAPTERS = {"gemma": "adapters_gemma_tiny", "gemma9b": "adapters"}
FILE = "--file configs/gemma/questions.jsonl"
GO_ON = "--resume --overwrite"


@pytest.fixture
def lab(tree):  # noqa: F811
    """The tree with the embedded Gemma's files, as old as the rest."""
    (tree / "models/Gemma-2-Tiny").mkdir()
    for name, age in (("summary.json", 1_000_000), ("tokenizer.json", 1_000_001)):  # as a checkout may leave them
        (tree / "models/Gemma-2-Tiny" / name).touch()
        os.utime(tree / "models/Gemma-2-Tiny" / name, (age, age))
    return tree


def chain(profile, data="data_mlx", knowledge="solverx_knowledge.jsonl", other=""):
    """The commands of `make gemma` in a fresh clone, blanks squeezed."""
    model, adapters, run = MODELS[profile], ADAPTERS[profile] + other, f"runs/{profile}{other}"
    stages = f"--adapter-path base tuned={adapters}"
    return [
        f"python3 prepare_mlx_data.py -c configs/data.yaml --knowledge {knowledge} --output-dir {data}",
        f"python3 train_with_early_stopping.py -c configs/{profile}/lora.yaml --model {model} --train --data {data}"
        f" --adapter-path {adapters} {GO_ON}",
        f"python3 infer_gemma.py --model {model} {FILE} --output {run}/answers_base.jsonl {GO_ON}",
        f"python3 infer_gemma_lora.py --model {model} --adapter-path {adapters} {FILE}"
        f" --output {run}/answers_tuned.jsonl {GO_ON}",
        f"python3 compare_models.py --model {model} --knowledge {knowledge} --questions configs/gemma/questions.jsonl"
        " --metrics recall recall_paraphrase general general_mixed general_unmixed glasses mab_ts"
        f" {stages} --output {run}/models.json --profile {profile}",
        f"python3 verify_general_performance.py --model {model} --knowledge {knowledge} {stages}"
        f" --output {run}/general.json",
        f"python3 render_report.py --run {run}",
    ]


def squeezed(lines):
    return [" ".join(line.split()) for line in lines]


@pytest.mark.parametrize(("setting", "profile"), [("tiny", "gemma"), ("gemma", "gemma"), ("gemma9b", "gemma9b")])
def test_a_fresh_clone_runs_exactly_the_warm_up(lab, setting, profile):
    assert squeezed(commands(lab, "gemma", f"PROFILE={setting}")) == chain(profile)


def test_a_tables_rows_in_the_facts_folder_are_made_anew(lab):
    """prepare_mlx_data.py --input writes to data_mlx, too: the warm-up would be trained on them."""
    made(lab)
    (lab / "data_mlx/summary.json").write_text(
        '{\n "flags": {\n  "knowledge": null,\n  "input": "faq.csv"\n }\n}\n'
    )
    os.utime(lab / "data_mlx/summary.json", (2_000_000, 2_000_000))
    assert squeezed(commands(lab, "gemma"))[0] == chain("gemma")[0]


def test_another_company_has_folders_of_its_own(lab):
    (lab / "in").mkdir()
    shutil.copy(lab / "solverx_knowledge.jsonl", lab / "in/acme.jsonl")
    printed = squeezed(commands(lab, "gemma", "KNOWLEDGE=in/acme.jsonl"))
    wanted = chain("gemma", "data_mlx-acme", "in/acme.jsonl", "-acme")
    seed = " --questions configs/gemma/questions.jsonl"  # the seed's questions are on SolverX
    assert printed == [line.replace(seed, "") for line in wanted if "infer_gemma" not in line]
    printed = "\n".join(commands(lab, "gemma", "KNOWLEDGE=in/acme.jsonl", "QUESTIONS=in/acme.jsonl"))
    assert printed.count("--file in/acme.jsonl") == 2 and "--questions in/acme.jsonl" in printed


def made(lab):
    """Touch what each stage of the warm-up writes last, in order."""
    names = ["data_mlx/summary.json", "adapters_gemma_tiny/summary.json"]
    names += [f"runs/gemma/{name}" for name in ("answers_base.jsonl", "answers_tuned.jsonl", "models.json")]
    for second, name in enumerate([*names, "runs/gemma/general.json"]):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text('{\n "flags": {\n  "knowledge": "solverx_knowledge.jsonl"\n }\n}\n')
        os.utime(lab / name, (2_000_000 + second, 2_000_000 + second))


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        (None, 6),
        ("solverx_knowledge.jsonl", 0),
        ("models/Gemma-2-Tiny/summary.json", 1),
        ("configs/gemma/lora.yaml", 1),
        ("runs/gemma/answers_tuned.jsonl", 4),
    ],
)
def test_what_changes_is_made_again_with_all_that_follows(lab, changed, left):
    made(lab)
    if changed:
        os.utime(lab / changed, (3_000_000, 3_000_000))
    printed = squeezed(commands(lab, "gemma"))
    base_stays = changed in ("solverx_knowledge.jsonl", "configs/gemma/lora.yaml")
    wanted = [line for line in chain("gemma")[left:] if not (base_stays and "_base.jsonl" in line)]
    assert printed == wanted


def test_the_three_ways_to_train_share_data_and_model(lab):
    made(lab)
    printed = squeezed(commands(lab, "compare-tuning"))
    lora = chain("gemma")[1]
    assert printed[:2] == [
        lora.replace("lora.yaml", f"{kind}.yaml").replace("gemma_tiny", f"gemma_tiny_{kind}")
        for kind in ("dora", "full")
    ]
    assert printed[2].endswith(
        "--adapter-path base lora=adapters_gemma_tiny dora=adapters_gemma_tiny_dora full=adapters_gemma_tiny_full"
    )
    assert "--output runs/gemma/tuning.json" in printed[2] and printed[3:] == chain("gemma")[-1:]


def test_kmmlu_of_gemma(lab):
    made(lab)
    sample, line, _ = commands(lab, "kmmlu", "PROFILE=gemma")
    assert "prepare_kmmlu_sample.py" in sample
    assert line.split()[1:6] == ["evaluate_kmmlu_gemma.py", "--model", MODELS["gemma"], "--adapter-path", "base"]
    assert "tuned=adapters_gemma_tiny --data-dir data_kmmlu_sample" in line and "runs/gemma/kmmlu.json" in line
    *_, line, _ = commands(lab, "kmmlu", "PROFILE=gemma9b")
    assert "tuned=adapters " in line and "sample" not in line and "runs/gemma9b/kmmlu.json" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sft", "PROFILE=gemma9b"], "there is no `make sft` for Gemma; `make gemma PROFILE=gemma9b`"),
        (["claims", "PROFILE=gemma"], "there is no `make claims` for Gemma; `make gemma PROFILE=gemma`"),
        (
            ["compare-tuning", "PROFILE=gemma9b"],
            "compare-tuning trains the embedded Gemma alone; leave PROFILE out",
        ),
        (
            ["compare-tuning", "KNOWLEDGE=in/acme.jsonl"],
            "compare-tuning is about SolverX alone; leave KNOWLEDGE out",
        ),
    ],
)
def test_what_a_gemma_profile_has_not_is_one_line(lab, arguments, words):
    (lab / "in").mkdir()
    shutil.copy(lab / "solverx_knowledge.jsonl", lab / "in/acme.jsonl")
    done = make(lab, *arguments)
    assert done.returncode != 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr
