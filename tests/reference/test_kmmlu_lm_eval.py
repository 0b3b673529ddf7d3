"""KMMLU beside lm-evaluation-harness itself: its own kmmlu task on local CSV files, through mlx_lm.evaluate's MLXLM.

Same items, same float32 weights: each choice's log-likelihood agrees to 1e-3, and the accuracy is the same.
"""

import json
from pathlib import Path

import pytest

lm_eval = pytest.importorskip("lm_eval", reason="needs requirements-dev.txt")

import evaluate_kmmlu_8bit as command  # noqa: E402
import prepare_kmmlu_sample as sample_command  # noqa: E402
from lab import models  # noqa: E402

ITEMS, SUBJECT, SEED = 6, "Sample-Geography", 1234
CASES = [(0, False, False), (5, False, False), (0, True, True), (5, True, True), (5, True, False)]


@pytest.fixture(scope="module")
def world(tmp_path_factory, model_8bit):
    """(data folder, model folder, MLXLM with our dequantized model in it)."""
    from lm_eval.api.registry import get_model  # noqa: F401  (mlx_lm.evaluate registers with it)
    from mlx_lm.evaluate import MLXLM

    folder = tmp_path_factory.mktemp("kmmlu") / "sample"
    assert sample_command.main(["--output-dir", str(folder)]) == 0
    theirs = MLXLM(str(model_8bit), use_chat_template=False)
    theirs._model, _ = models.load(model_8bit)
    return folder, model_8bit, theirs


def task_of(yaml_file, files):
    """A task by lm-eval's own yaml, with local CSV files in place of the hub's."""
    import lm_eval.tasks
    import yaml

    where = Path(lm_eval.tasks.__file__).parent / yaml_file
    config = yaml.safe_load(where.read_text(encoding="utf-8"))
    return {**config, "task": "local", "dataset_path": "csv", "dataset_kwargs": {"data_files": files}}


def by_lm_eval(task, lm, shots, chat=False, multiturn=False):
    """(accuracy, {place: [log-likelihood of each choice]}) of lm-eval's simple_evaluate."""
    from lm_eval.tasks import TaskManager

    lm.use_chat_template = chat
    options = {"num_fewshot": shots, "limit": ITEMS, "bootstrap_iters": 0, "log_samples": True}
    options |= {"apply_chat_template": chat, "fewshot_as_multiturn": multiturn, "fewshot_random_seed": SEED}
    found = lm_eval.simple_evaluate(model=lm, tasks=[task], task_manager=TaskManager(), **options)
    rows = {row["doc_id"]: [each[0] for each in row["filtered_resps"]] for row in found["samples"]["local"]}
    return found["results"]["local"]["acc,none"], rows


@pytest.mark.reference
@pytest.mark.parametrize("shots, chat, multiturn", CASES)
def test_the_same_figures_as_lm_eval(world, tmp_path, shots, chat, multiturn):
    folder, model, lm = world
    files = {split: str(folder / f"data/{SUBJECT}-{split}.csv") for split in ("dev", "test")}
    task = task_of("kmmlu/default/_default_kmmlu_yaml", files)
    theirs = by_lm_eval(task, lm, shots, chat, multiturn)
    flags = ["--chat"] if chat else []
    flags += ["--fewshot-as-multiturn" if multiturn else "--no-fewshot-as-multiturn", "--shots", str(shots)]
    beside(theirs, tmp_path, "--model", model, "--data-dir", folder, "--subset", SUBJECT, *flags)


def beside(theirs, folder, *flags):
    """Hold what our command measures against (accuracy, log-likelihoods)."""
    accuracy, theirs = theirs
    assert command.main([*map(str, flags), "--limit", str(ITEMS), "--output", str(folder / "kmmlu.json")]) == 0
    lines = (folder / "kmmlu_base.jsonl").read_text(encoding="utf-8").splitlines()
    ours = {int(row["id"].rpartition("/")[2]): row for row in map(json.loads, lines)}
    assert sorted(ours) == sorted(theirs) == list(range(ITEMS))
    for place, values in theirs.items():
        assert list(ours[place]["loglikelihoods"].values()) == pytest.approx(values, abs=1e-3)
    micro = json.loads((folder / "kmmlu.json").read_text(encoding="utf-8"))["stages"]["base"]["micro"]
    assert micro["correct"] / ITEMS == pytest.approx(accuracy)


@pytest.mark.reference
@pytest.mark.parametrize("shots, chat", [(0, False), (2, False), (2, True)])
def test_five_options_as_in_lm_eval(world, tmp_path, shots, chat):
    """HAE-RAE's general_knowledge: choices of several tokens, examples from the other test items."""
    _, model, lm = world
    texts = [f"수도 {number}번은? (A) 서울 (B) 파리 (C) 런던 (D) 로마 (E) 베를린 정답:" for number in range(9)]
    rows = "".join(f"{text},({'ABCDE'[place % 5]})\n" for place, text in enumerate(texts))
    path = tmp_path / "general_knowledge-test.csv"
    path.write_text(f"query,answer\n{rows}", encoding="utf-8")
    theirs = by_lm_eval(task_of("haerae/_default_haerae_yaml", {"test": str(path)}), lm, shots, chat)
    flags = ["--subset", "haerae-general-knowledge", "--shots", shots, "--no-fewshot-as-multiturn"]
    flags += ["--chat"] if chat else []
    beside(theirs, tmp_path, "--model", model, "--data-dir", tmp_path, *flags)
