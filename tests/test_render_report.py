"""The report's command: what it writes, what it says of bad input, and what a browser makes of the page."""

import json
import shutil

import pytest

import check_claims
import compare_hcx_stages
import convert_hyperclova
import evaluate_kmmlu_8bit
import prepare_solverx_cpt_data
import render_report
import train_with_early_stopping
from lab.cli import CheckFailed, LabError, sha256
from lab.page import to_html
from lab.sections import command
from tests import browser, made_runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run with every part, rendered once."""
    run = made_runs.whole(tmp_path_factory.mktemp("whole"))
    with pytest.raises(CheckFailed, match="2 of 23 claims do not hold: cpt-keeps-general, kmmlu-law"):
        check_claims.main(["--run", str(run)])
    assert render_report.main(["--run", str(run)]) == 0
    return run


@pytest.fixture
def bare(tmp_path):
    """A run's folder with nothing but report.json."""
    run = tmp_path / "bare"
    made_runs.write(run / "report.json", made_runs.report())
    return run


@pytest.fixture(scope="module")
def chromium():
    return browser.find() or pytest.skip(browser.HOW)


def test_the_same_json_gives_the_same_bytes(run, whole, tmp_path):
    again = ("--html", tmp_path / "again.html", "--markdown", tmp_path / "again.md")
    assert run(render_report.main, "--run", whole, *again)[0] == 0
    for name in ("html", "md"):
        assert (tmp_path / f"again.{name}").read_bytes() == (whole / f"report.{name}").read_bytes()


def test_what_was_not_run_is_named_with_its_command(run, bare):
    code, out, error = run(render_report.main, "--run", bare)
    assert code == 0, error
    assert f"report: {bare / 'report.html'}" in out and "forgetting (`make forgetting`)" in out
    page = (bare / "report.html").read_text(encoding="utf-8")
    for target in ("make sft", "make forgetting", "make kmmlu", "make claims"):
        assert f"Not run: <code>{target}</code>" in page
    assert "23/24  95.8 % [80-99]" in page and "Not run: `make kmmlu`" in (bare / "report.md").read_text(
        encoding="utf-8"
    )


def test_every_part_is_on_the_page_and_in_markdown(whole):
    for name in ("html", "md"):
        text = (whole / f"report.{name}").read_text(encoding="utf-8")
        assert "Not run" not in text
        for words in (
            "Half of the rows keep 90 % of general ability",
            "the best",
            "-82.0 ",
            "sft → no-replay",
            "early: no better for long enough",
            "limit 2.200",
        ):
            assert words in text
        for words in ("people 62.6 %", "answers A in 40 % of items", "abc123", "0" * 64):
            assert words in text
        assert "not KMMLU" not in text
    assert '<span class="sign">✗ </span>does not hold' in (whole / "report.html").read_text(encoding="utf-8")
    assert "| ✗ does not hold |" in text


def test_a_sample_is_not_sold_as_kmmlu(run, bare):
    made_runs.write(bare / "kmmlu.json", made_runs.kmmlu(sample=True))
    assert run(render_report.main, "--run", bare)[0] == 0
    for name in ("html", "md"):
        assert "A sample made by the lab, not KMMLU" in (bare / f"report.{name}").read_text(encoding="utf-8")


def test_claims_judged_on_other_figures_are_told(run, bare):
    run(check_claims.main, "--run", bare)
    assert run(render_report.main, "--run", bare)[0] == 0
    assert "Judged before" not in (bare / "report.html").read_text(encoding="utf-8")
    made_runs.write(bare / "report.json", made_runs.report() | {"entity": "SolverY"})
    assert run(render_report.main, "--run", bare)[0] == 0
    assert f"Judged before {bare / 'report.json'} changed" in (bare / "report.html").read_text(encoding="utf-8")
    run(check_claims.main, "--run", bare)
    made_runs.write(bare / "kmmlu.json", made_runs.kmmlu())
    assert run(render_report.main, "--run", bare)[0] == 0
    assert f"Judged before {bare / 'kmmlu.json'} changed or came" in (bare / "report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["no_replay", "forgetting", "kmmlu", "tuning"])
def test_a_part_measured_on_another_adapter_is_told(run, whole, tmp_path, name):
    """Make does not measure the side rooms again by itself where SFT is."""
    copy = shutil.copytree(whole, tmp_path / "copy")
    for part, digest in (("report", "1" * 64), (name, "0" * 64)):
        content = json.loads((copy / f"{part}.json").read_text(encoding="utf-8"))
        made_runs.write(copy / f"{part}.json", content | {"inputs": {"sft/adapters.safetensors": digest}})
    assert run(render_report.main, "--run", copy)[0] == 0
    text = (copy / "report.html").read_text(encoding="utf-8")
    target = {"no_replay": "no-replay", "tuning": "compare-tuning"}.get(name, name)
    assert (
        f"{name}.json was measured on another sft/adapters.safetensors than report.json: run `make {target}`"
        in text
    )
    assert "Not of one run: sft/adapters.safetensors changed between" in text
    assert "0" * 64 in text and "1" * 64 in text


def test_figures_of_an_adapter_that_was_trained_again_since_are_told(run, tmp_path):
    """Else the curve and the loss are the new one's, and every answer the old one's."""
    weights = tmp_path / "lora/adapters.safetensors"
    made_runs.curve(weights.parent)
    weights.write_bytes(b"old")
    content = made_runs.comparison() | {"inputs": {str(weights): sha256(weights)}}
    made_runs.write(tmp_path / "models.json", content)
    for data, told in ((b"old", False), (b"new", True)):
        weights.write_bytes(data)
        assert run(render_report.main, "--run", tmp_path)[0] == 0
        words = f"models.json was measured before {weights} changed: run `make gemma` again."
        assert (words in (tmp_path / "report.html").read_text(encoding="utf-8")) == told


@pytest.mark.parametrize("name", ["models", "tuning"])
def test_a_run_of_compared_models_has_a_page_without_report_json(run, tmp_path, name):
    adapters = {stage: tmp_path / f"adapters_{stage}" for stage in ("lora", "full")}
    for folder in adapters.values():
        made_runs.curve(folder)
    content = made_runs.comparison()
    content["flags"]["adapter_path"] = ["base", *(f"{stage}={folder}" for stage, folder in adapters.items())]
    made_runs.write(tmp_path / f"{name}.json", content)
    code, out, error = run(render_report.main, "--run", tmp_path)
    assert code == 0, error
    other = {"models": "tuning (`make compare-tuning`)", "tuning": "models (`make gemma`)"}[name]
    assert f"not run: {other}\n" in out
    for kind in ("html", "md"):
        text = (tmp_path / f"report.{kind}").read_text(encoding="utf-8")
        for words in (
            "198/200",
            "x0.58",
            "777.0 kB",
            "300 of 1000",
            "512.00 MB",
            "0.25 s to load",
            "theirs 80.00 MB",
        ):
            assert words in text
        assert "lora: loss while training" in text and "full: loss while training" in text
        assert "make kmmlu" not in text and "make claims" not in text
    assert "holds them all" in text and f"{name}.json" in text


def test_questions_that_nothing_judges_stand_on_the_page(run, tmp_path):
    content = made_runs.comparison() | {"stages": {stage: {} for stage in ("base", "lora", "full")}, "paired": {}}
    said = {stage: {"answer": f"{stage}는 모릅니다", "right": None} for stage in content["stages"]}
    content["samples"] = [{"metric": "questions", "prompt": "뭐야?", "answers": said}]
    made_runs.write(tmp_path / "models.json", content)
    code, _, error = run(render_report.main, "--run", tmp_path)
    assert code == 0, error
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| questions: 뭐야? | base는 모릅니다 | lora는 모릅니다 | full는 모릅니다 |" in text
    assert "What each stage can do" not in text


def test_compared_models_stand_beside_a_chain_of_its_own_where_they_are_there(run, bare):
    assert run(render_report.main, "--run", bare)[0] == 0
    assert "compare-tuning" not in (bare / "report.html").read_text(encoding="utf-8")
    made_runs.write(bare / "models.json", made_runs.comparison())
    assert run(render_report.main, "--run", bare)[0] == 0
    text = (bare / "report.html").read_text(encoding="utf-8")
    assert "Base and tuned side by side" in text and "23/24  95.8 %" in text


def test_versions_that_differ_stand_with_their_files(run, bare):
    made_runs.write(bare / "kmmlu.json", made_runs.kmmlu() | {"versions": {"python": "3.12", "mlx": None}})
    assert run(render_report.main, "--run", bare)[0] == 0
    text = (bare / "report.html").read_text(encoding="utf-8")
    assert f"3.11: {bare / 'report.json'}\n3.12: {bare / 'kmmlu.json'}" in text and "not installed" in text


def test_an_adapter_without_a_name_has_its_curve(run, bare, tmp_path):
    made_runs.curve(tmp_path / "adapters_mine")
    content = made_runs.report()
    content["flags"]["adapter_path"] = ["base", str(tmp_path / "adapters_mine")]
    made_runs.write(bare / "report.json", content)
    assert run(render_report.main, "--run", bare)[0] == 0
    assert "adapters_mine: loss while training" in (bare / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("given", ["cosine", {"name": "cosine_decay", "arguments": [1e-4, 50], "warmup": 5}])
def test_a_schedule_by_name_or_in_full_stands_beside_the_rate(run, bare, tmp_path, given):
    made_runs.curve(tmp_path / "adapters_mine")
    path = tmp_path / "adapters_mine/summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    made_runs.write(path, summary | {"flags": summary["flags"] | {"lr_schedule": given}})
    content = made_runs.report()
    content["flags"]["adapter_path"] = ["base", str(tmp_path / "adapters_mine")]
    made_runs.write(bare / "report.json", content)
    code, _, error = run(render_report.main, "--run", bare)
    assert code == 0, error
    assert "0.0001 cosine" in (bare / "report.md").read_text(encoding="utf-8").replace("\\", "")


def test_points_stand_from_few_to_many_general_rows(run, bare):
    """compare_replay.py begins with the default's point."""
    content = made_runs.forgetting()
    names = [point["name"] for point in content["points"]]
    content["points"] = content["points"][2:] + content["points"][:2]
    made_runs.write(bare / "forgetting.json", content)
    assert run(render_report.main, "--run", bare)[0] == 0
    lines = (bare / "report.md").read_text(encoding="utf-8").splitlines()
    assert [name for line in lines for name in names if line.startswith(f"| {name}")] == names


def test_a_part_of_kmmlu_is_called_one(run, bare):
    made_runs.write(bare / "kmmlu.json", made_runs.kmmlu() | {"flags": {"limit": 50}})
    assert run(render_report.main, "--run", bare)[0] == 0
    assert "the first 50 items of each subject; chance" in (bare / "report.html").read_text(encoding="utf-8")


def test_the_whole_chain_stands_in_the_provenance(run, bare, tmp_path):
    for name, command_name in (("model", "convert_hyperclova.py"), ("data_sft", "prepare_solverx_sft_data.py")):
        made_runs.write(tmp_path / name / "summary.json", made_runs.PROVENANCE | {"command": command_name})
    content = made_runs.report()
    content["flags"]["model"] = str(tmp_path / "model")
    content["data"] = {str(tmp_path / "data_sft"): content["data"]["data_sft"]}
    made_runs.write(bare / "report.json", content)
    assert run(render_report.main, "--run", bare)[0] == 0
    text = (bare / "report.html").read_text(encoding="utf-8")
    assert text.index("python convert_hyperclova.py --seed 7") < text.index(
        "python prepare_solverx_sft_data.py --seed 7"
    )


def test_a_report_without_differences_says_how_to_get_them(run, bare):
    content = made_runs.report()
    del content["paired"]
    made_runs.write(bare / "report.json", content)
    assert run(render_report.main, "--run", bare)[0] == 0
    assert "no paired differences" in (bare / "report.html").read_text(encoding="utf-8")


def broken(name, change, file=None):
    """A function that writes the part `name` of a run, as `file`, after `change`, which changes it or returns other text."""

    def write(run):
        content = getattr(made_runs, name)()
        changed = change(content)
        text = changed if isinstance(changed, str) else json.dumps(content)
        (run / f"{file or name}.json").write_text(text, encoding="utf-8")

    return write


@pytest.mark.parametrize("wrong", ["null", '"x"', "-1", "[]", '{"a": null}'])
def test_whatever_stands_in_a_report_is_rendered_or_refused(bare, wrong):
    """Every value of report.json in turn becomes something else: a page comes out, or a LabError that names the file."""
    refused, good = 0, (bare / "report.json").read_text(encoding="utf-8")
    for path in made_runs.places(json.loads(good)):
        whole = {"": json.loads(good)}
        inner = whole
        for key in ("", *path)[:-1]:
            inner = inner[key]
        inner[("", *path)[-1]] = json.loads(wrong)
        (bare / "report.json").write_text(json.dumps(whole[""]), encoding="utf-8")
        try:
            to_html(*render_report.build(bare, render_report.read(bare)))
        except LabError as error:
            refused += 1
            assert str(bare / "report.json") in str(error) and "\n" not in str(error)
    assert refused > 50


def curve_line(text):
    def write(run):
        folder = run / "cpt"
        made_runs.curve(folder)
        (folder / "curve.jsonl").open("a", encoding="utf-8").write(text)
        made_runs.write(run / "report.json", made_runs.report() | {"flags": {"adapter_path": [f"cpt={folder}"]}})

    return write


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "report.json").unlink(), "report.json: no such file; `make verify` writes it"),
        (lambda run: (run / "report.json").unlink(), "Nor is there models.json or tuning.json: `make gemma` and"),
        (
            broken("comparison", lambda it: it["speed"].update(x=it["speed"]["base"]), "models"),
            "models.json: all of it: Value error, speed of a stage that is none: 'x'; remove it, then `make gemma`",
        ),
        (
            broken("comparison", lambda it: it["training"]["lora"].pop("seconds") and None, "tuning"),
            "tuning.json: training.lora: Value error, seconds, updates, process_bytes and device_bytes stand together",
        ),
        (
            broken("comparison", lambda it: it["asked"].update(repeats=-1), "tuning"),
            "tuning.json: asked.repeats: Input should be greater than or equal to 0; remove it, then `make compare-t",
        ),
        (
            broken("comparison", lambda it: it["stages"]["base"].update(x=1), "models"),
            "models.json: stage base: unknown metric 'x'",
        ),
        (broken("report", lambda _: "{"), "report.json:1: not valid JSON"),
        (broken("report", lambda _: "[]"), "report.json: holds no stages"),
        (broken("report", lambda it: it["paired"].update(recal=[])), "paired: unknown metric 'recal'"),
        (
            broken("report", lambda it: it["paired"]["recall"][0].pop("low")),
            "paired: recall: difference, low, high, p",
        ),
        (
            broken("report", lambda it: it["paired"]["recall"][0].update(n=0)),
            'paired: recall: "first", "second" and',
        ),
        (broken("forgetting", lambda _: "[]"), "forgetting.json: all of it: Input should be"),
        (
            broken("forgetting", lambda it: it.update(points=None)),
            "forgetting.json: points: Input should be a valid list",
        ),
        (
            broken("forgetting", lambda it: it["points"][1]["metrics"].update(x=1)),
            "metrics.x: Input should be 'identity', ",
        ),
        (
            broken("forgetting", lambda it: it["points"][1].update(replay="real")),
            "points.1.replay: Input should be 'none'",
        ),
        (
            broken("forgetting", lambda it: it["points"][1].update(ratio=25)),
            "points.1.ratio: Input should be less than",
        ),
        (
            broken("forgetting", lambda it: it["points"][0].pop("name") and None),
            "points.0.name: Field required; remove it, then `make for",
        ),
        (
            broken("forgetting", lambda it: it.update(default="replay-5")),
            "default 'replay-5' must be one of the points",
        ),
        (
            broken("kmmlu", lambda it: it.update(chance=25)),
            "kmmlu.json: chance: Input should be less than or equal to 1",
        ),
        (broken("kmmlu", lambda it: it["stages"]["cpt"].update(micro=None)), "stages.cpt.micro: Input should be"),
        (
            broken("kmmlu", lambda it: it["stages"]["cpt"]["subjects"]["Law"].update(n=1)),
            "subjects.Law: Value error, 180",
        ),
        (
            broken("kmmlu", lambda it: it["stages"]["cpt"]["letters"].update(A="x")),
            "stages.cpt.letters.A: Input should be",
        ),
        (
            broken("kmmlu", lambda it: it.update(paired={})),
            "kmmlu.json: paired: Input should be a valid list; remove it, then `make kmmlu`",
        ),
        (broken("kmmlu", lambda it: it.update(human=True)), "kmmlu.json: human: Input should be a valid number"),
        (
            lambda run: made_runs.write(run / "claims.json", {}),
            "claims.json: claims: Field required (and 1 more faults)",
        ),
        (curve_line('{"iteration": 60, "valid_'), "cpt/curve.jsonl:12: not valid JSON"),
        (
            curve_line('{"valid_loss": 1}\n'),
            "cpt/curve.jsonl:12: iteration: Field required; train the adapter again",
        ),
        (
            curve_line('{"iteration": 60, "valid_loss": "low"}\n'),
            "cpt/curve.jsonl:12: valid_loss: Input should be a valid",
        ),
    ],
)
def test_bad_input_is_one_line_with_the_file(run, bare, spoil, message):
    spoil(bare)
    code, out, error = run(render_report.main, "--run", bare)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert message in error and str(bare) in error
    assert not (bare / "report.html").exists()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (compare_hcx_stages, "--model m --adapter-path base cpt=a --output o.json --limit 5 --no-table"),
        (train_with_early_stopping, "-c c.yaml --model m --train --data d --iters 5 --learning-rate 0.1 --resume"),
        (prepare_solverx_cpt_data, "--knowledge k.jsonl --output-dir d"),
        (convert_hyperclova, "--hf-path a --mlx-path b --no-quantize --force"),
        (evaluate_kmmlu_8bit, "--model m --chat --no-fewshot-as-multiturn --subset Law Math --output o.json"),
    ],
)
def test_the_commands_on_the_page_can_be_run(module, line):
    """The command line made of recorded flags gives these flags again."""
    flags = {
        key: value if isinstance(value, (int, float, list, type(None))) else str(value)
        for key, value in vars(module.parse_args(line.split())).items()
    }
    again = command("x.py", flags).split()
    assert again[:2] == ["python", "x.py"]
    assert vars(module.parse_args(again[2:])) == vars(module.parse_args(line.split()))


def test_a_phone_scrolls_no_sideways(whole, chromium, tmp_path):
    width, height = browser.size_on(chromium, whole / "report.html", 390, tmp_path)
    assert width <= 390
    assert height > 2000


def test_the_page_is_drawn_in_light_and_dark(whole, chromium, tmp_path):
    light = browser.screenshot(chromium, whole / "report.html", tmp_path / "light.png", (1280, 2400))
    dark = browser.screenshot(chromium, whole / "report.html", tmp_path / "dark.png", (1280, 2400), browser.DARK)
    assert light.shape[:2] == dark.shape[:2] == (2400, 1280)
    assert light[..., :3].mean() > 0.85 and dark[..., :3].mean() < 0.3
    for picture in (light, dark):
        assert picture[..., :3].std() > 0.05  # something is drawn on the paper
        colours = {tuple(colour) for colour in (picture[::3, ::3, :3] * 15).astype(int).reshape(-1, 3)}
        assert len(colours) > 30
