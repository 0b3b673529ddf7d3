"""Claims: the seed's own on made-up runs, each kind of bound at its edge, and files that are no claims."""

import json

import pytest
import yaml

import check_claims
from lab import bounds, claims, evidence
from lab.stats import counted, less_scaled
from tests import made_runs

TEXTS = {"id": "one", "claim": "It holds.", "claim_ko": "그렇다.", "seed": "1"}
STAGE = {"file": "report", "stage": "sft", "metric": "recall"}
CHANGE = {"file": "report", "from": "base", "to": "cpt", "metric": "general"}


@pytest.fixture
def made(tmp_path):
    return made_runs.whole(tmp_path)


@pytest.fixture
def judge(run, tmp_path, made):
    """A function that judges claims (dicts, or text) on the made-up run; returns (code, what was printed, the error)."""

    def call(*items):
        path = tmp_path / "claims.yaml"
        text = items[0] if isinstance(items[0], str) else yaml.safe_dump(list(items), allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        return run(check_claims.main, "--run", made, "--claims", path)

    return call


def verdicts(made):
    return {
        claim["id"]: claim["verdict"] for claim in json.loads((made / "claims.json").read_text("utf-8"))["claims"]
    }


def test_the_seeds_claims_on_a_run_with_every_part(run, made):
    code, out, error = run(check_claims.main, "--run", made)
    assert code == 3 and error.count("\n") == 1
    assert "2 of 23 claims do not hold: cpt-keeps-general, kmmlu-law" in error
    found = verdicts(made)
    unlike = {"eight-bits": "not measured", "unknown-attributes": "not measured"}
    unlike |= {"cpt-keeps-general": "does not hold", "kmmlu-law": "does not hold"}
    assert {name: verdict for name, verdict in found.items() if verdict != "holds"} == unlike
    assert "holds: cpt completion 55/56  98.2 % [91-100], at least 90.0 %" in out
    assert "does not hold: base -> cpt general -24.0 [-30 to -18] points, a fall of at most 10" in out


def test_what_was_not_run_is_told_with_its_target(run, tmp_path):
    made_runs.write(tmp_path / "report.json", made_runs.report())
    code, out, _ = run(check_claims.main, "--run", tmp_path)
    assert code == 3  # cpt-keeps-general
    assert "not measured: coloured-glasses" in out and "to measure it: `make no-replay`" in out
    assert "to measure it: `make forgetting`" in out and "to measure it: `make kmmlu`" in out
    summary = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert summary["counts"]["not measured"] == 13 and summary["profile"] == "made-up"
    assert summary["inputs"].keys() == {"configs/claims.yaml", str(tmp_path / "report.json")}


def test_a_doubted_claim_fails_without_a_fault_and_is_told_when_it_holds(judge):
    doubted = {**TEXTS, "doubted": {"made-up": "too small"}}
    code, out, _ = judge({**doubted, "holds_if": [{**STAGE, "at_most": 0.1}]})
    assert code == 0 and "does not hold: one" in out and "doubted: too small" in out
    code, out, _ = judge({**doubted, "holds_if": [{**STAGE, "at_least": 0.1}]})
    assert code == 0 and "note: one holds, though" in out
    assert judge({**TEXTS, "doubted": {"tiny": "x"}, "holds_if": [{**STAGE, "at_most": 0.1}]})[0] == 3


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [  # sft recall is 198/200 [96.4, 99.7]; general falls by 24 points [-30.3, -18.2] from base to cpt
        ({**STAGE, "at_least": 0.96}, "holds"),
        ({**STAGE, "at_least": 0.97}, "undecided"),
        ({**STAGE, "at_least": 0.998}, "does not hold"),
        ({**STAGE, "at_most": 0.998}, "holds"),
        ({**STAGE, "at_most": 0.99}, "undecided"),
        ({**STAGE, "at_most": 0.96}, "does not hold"),
        ({**CHANGE, "falls_at_most": 0.31}, "holds"),
        ({**CHANGE, "falls_at_most": 0.24}, "undecided"),
        ({**CHANGE, "falls_at_most": 0.18}, "does not hold"),
        ({**CHANGE, "falls_at_least": 0.18}, "holds"),
        ({**CHANGE, "falls_at_least": 0.24}, "undecided"),
        ({**CHANGE, "falls_at_least": 0.31}, "does not hold"),
        ({**CHANGE, "rises_at_most": 0.0}, "holds"),
        ({**CHANGE, "from": "cpt", "to": "base", "rises_at_least": 0.18}, "holds"),
        ({**CHANGE, "from": "cpt", "to": "base", "rises_at_least": 0.24}, "undecided"),
        ({**CHANGE, "rises_at_least": 0.0}, "does not hold"),
        ({**STAGE, "metric": "general", "of_base": 0.8}, "holds"),
        ({**STAGE, "metric": "general", "of_base": 0.95}, "undecided"),
        ({**STAGE, "stage": "cpt", "metric": "general", "of_base": 0.95}, "does not hold"),
        ({"file": "kmmlu", "stage": "base", "metric": "micro", "above_chance": 0.1}, "holds"),
        ({"file": "kmmlu", "stage": "base", "metric": "micro", "above_chance": 0.19}, "undecided"),
        ({"file": "kmmlu", "stage": "base", "metric": "micro", "above_chance": 0.3}, "does not hold"),
        ({"file": "kmmlu", "stage": "sft", "metric": "groups/STEM", "at_least": 0.3}, "holds"),
        ({"file": "kmmlu", "stage": "sft", "metric": "subjects/Patience", "at_least": 0.3}, "not measured"),
        ({"file": "forgetting", "stage": "none", "metric": "glasses", "at_least": 0.4}, "holds"),
        ({"file": "forgetting", "stage": "self", "metric": "mab_ts", "at_least": 0.4}, "not measured"),
        ({"file": "conversion", "figure": "parameters", "at_least": 1}, "not measured"),
    ],
)
def test_each_bound_is_decided_by_its_interval(judge, made, condition, verdict):
    code, _, error = judge({**TEXTS, "holds_if": [condition]})
    assert verdicts(made) == {"one": verdict}
    assert code == (3 if verdict == "does not hold" else 0), error


@pytest.mark.parametrize(
    ("given", "holds_if", "verdict"),
    [
        ([{**STAGE, "at_least": 0.97}], [{**STAGE, "at_least": 0.5}], "undecided"),
        ([{**STAGE, "at_most": 0.5}], [{**STAGE, "at_most": 0.5}], "undecided"),
        (
            [{"file": "conversion", "figure": "parameters", "at_least": 1}],
            [{**STAGE, "at_least": 0.5}],
            "not measured",
        ),
        ([{**STAGE, "at_least": 0.5}], [{**STAGE, "at_least": 0.5}, {**STAGE, "at_least": 0.97}], "undecided"),
        ([{**STAGE, "at_least": 0.5}], [{**STAGE, "at_most": 0.5}, {**STAGE, "at_least": 0.97}], "does not hold"),
    ],
)
def test_all_conditions_together(judge, made, given, holds_if, verdict):
    judge({**TEXTS, "given": given, "holds_if": holds_if})
    assert verdicts(made) == {"one": verdict}


@pytest.mark.parametrize(
    "change", [{"sample": True}, {"task": "haerae_general_knowledge"}, {"flags": {"limit": 50}}]
)
def test_what_is_not_kmmlu_decides_no_claim_on_kmmlu(run, made, change):
    made_runs.write(made / "kmmlu.json", made_runs.kmmlu(subjects=made_runs.EVERY_SUBJECT) | change)
    run(check_claims.main, "--run", made)
    assert {verdicts(made)[name] for name in ("kmmlu-cpt", "kmmlu-sft", "kmmlu-law")} == {"not measured"}


def test_a_sample_says_so_of_a_subject_that_it_lacks_too(run, made):
    made_runs.write(made / "kmmlu.json", made_runs.kmmlu(subjects={"Sample-Words": "Other"}, sample=True))
    _, out, _ = run(check_claims.main, "--run", made)
    assert "base subjects/Law was not measured; only a sample made by the lab, not KMMLU; KMMLU_DATA=" in out


def test_some_subjects_decide_on_themselves_and_not_on_kmmlu(run, made):
    made_runs.write(made / "kmmlu.json", made_runs.kmmlu())
    _, out, _ = run(check_claims.main, "--run", made)
    found = verdicts(made)
    assert (found["kmmlu-cpt"], found["kmmlu-law"]) == ("not measured", "does not hold")
    assert "of 4 subjects only, KMMLU has 45" in out


@pytest.mark.parametrize(
    ("name", "target", "claim"),
    [
        ("no_replay", "make no-replay", "coloured-glasses"),
        ("forgetting", "make forgetting", "self-replay-cures"),
        ("kmmlu", "make kmmlu", "kmmlu-law"),
    ],
)
def test_figures_of_an_adapter_that_was_trained_again_decide_nothing(run, made, name, target, claim):
    """Make does not measure the side rooms again by itself where SFT is."""
    for part, digest in (("report", "1" * 64), (name, "0" * 64)):
        path = made / f"{part}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        made_runs.write(path, content | {"inputs": {"adapters_sft/adapters.safetensors": digest}})
    assert verdicts_after(run, made)[claim] == "not measured"
    again = json.loads((made / "claims.json").read_text(encoding="utf-8"))["claims"]
    (one,) = (each for each in again if each["id"] == claim)
    assert target in one["make"]
    assert "measured on another adapters_sft/adapters.safetensors than report.json" in str(one["figures"])


def test_a_model_converted_again_decides_nothing(run, made, tmp_path):
    summary = made_runs.write(tmp_path / "model/summary.json", {"tensors_checked": 9, "bits_per_weight": 8.5})
    content = json.loads((made / "report.json").read_text(encoding="utf-8"))
    content["flags"]["model"] = str(summary.parent)
    made_runs.write(made / "report.json", content)
    assert verdicts_after(run, made)["eight-bits"] == "holds"
    made_runs.write(made / "report.json", content | {"inputs": {str(summary): "0" * 64}})
    assert verdicts_after(run, made)["eight-bits"] == "not measured"


def verdicts_after(run, made):
    run(check_claims.main, "--run", made)
    return verdicts(made)


def test_a_model_that_guesses_has_nothing_to_lose(run, made):
    content = made_runs.kmmlu(subjects=made_runs.EVERY_SUBJECT)
    content["stages"]["base"]["micro"] = counted(4500, 18000)
    made_runs.write(made / "kmmlu.json", content)
    run(check_claims.main, "--run", made)
    assert verdicts(made)["kmmlu-cpt"] == "undecided"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (("[",), ":1: not valid YAML"),
        (("a: b",), "expected a YAML list"),
        (("[]",), "holds no claim"),
        (("- 5",), "claim 1: expected `id: ...` lines, found 5"),
        (({**TEXTS, "id": ""},), "claim : no text under 'id'"),
        (({**TEXTS, "claim_ko": None},), "claim one: no text under 'claim_ko'"),
        (({**TEXTS, "hold_if": []},), "claim one: unknown key 'hold_if'; known: id, "),
        ((TEXTS,), "claim one: needs `holds_if:` conditions, or `no_probe:`"),
        (({**TEXTS, "holds_if": []},), "claim one: holds_if: expected a list of conditions"),
        (({**TEXTS, "no_probe": "x"},) * 2, "claim one: stands twice"),
        (({**TEXTS, "no_probe": "x", "doubted": "tiny"},), "claim one: `doubted:` is `profile: why` lines"),
    ],
)
def test_what_is_no_claim_is_one_line(judge, items, message):
    code, out, error = judge(*items)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "claims.yaml" in error and message in error


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (5, "file None is none of report"),
        ({**STAGE, "file": ["report"], "at_least": 1}, "file ['report'] is none of report"),
        ({**STAGE, "file": "reports", "at_least": 1}, "file 'reports' is none of report, no_replay"),
        ({**STAGE, "stage": "stf", "at_least": 1}, "unknown stage 'stf'; known in report.json: base, cpt, sft"),
        ({**STAGE, "metric": "recal", "at_least": 1}, "unknown metric 'recal'; known in report.json: identity, "),
        ({**STAGE, "metric": None, "at_least": 1}, "unknown metric None"),
        ({**STAGE, "file": "kmmlu", "metric": "subjects/", "at_least": 1}, "unknown metric 'subjects/'"),
        (STAGE, "needs stage, metric and one bound out of at_least, at_most, of_base, above_chance"),
        ({**STAGE, "at_least": 1, "at_most": 1}, "needs stage, metric and one bound"),
        ({**STAGE, "falls_at_most": 0.1}, "needs stage, metric and one bound"),
        ({**CHANGE, "at_least": 0.1}, "needs from, to, metric and one bound out of rises_at_least"),
        ({**CHANGE, "file": "forgetting", "to": "self", "falls_at_most": 0.1}, "no change of 'general' stands in"),
        (
            {**CHANGE, "file": "kmmlu", "metric": "subjects/Law", "falls_at_most": 0.1},
            "stands in kmmlu.json, only of micro; bound a stage instead",
        ),
        ({**STAGE, "at_least": 80}, "at_least: 80 is no share from 0 to 1"),
        ({**STAGE, "at_least": True}, "at_least: True is no share"),
        ({**STAGE, "at_least": float("nan")}, "at_least: nan is no share"),
        ({"file": "conversion", "figure": "parameters", "at_least": float("inf")}, "at_least: inf is no number"),
        (
            {"file": "conversion", "figure": "colour", "at_least": 1},
            "unknown metric 'colour'; known in summary.json",
        ),
    ],
)
def test_a_condition_that_cannot_be_judged_names_its_claim(judge, condition, message):
    code, out, error = judge({**TEXTS, "holds_if": [{**STAGE, "at_least": 0.5}, condition]})
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "claims.yaml: claim one: holds_if 2: " in error and message in error


@pytest.mark.parametrize("text", ['{"stages": 3}', '{"stages"', "[" * 100000])
@pytest.mark.parametrize("name", ["report", "no_replay", "forgetting", "kmmlu"])
def test_a_malformed_part_is_one_line_with_the_file(run, made, name, text):
    (made / f"{name}.json").write_text(text, encoding="utf-8")
    code, out, error = run(check_claims.main, "--run", made)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert f"{name}.json" in error
    target = "verify" if name == "report" else name.replace("_", "-")
    assert f"remove it, then `make {target}` writes it" in error


def test_a_folder_without_a_report(run, tmp_path):
    code, _, error = run(check_claims.main, "--run", tmp_path)
    assert code == 1 and "report.json: no such file; `make verify` writes it" in error


def test_every_claim_of_the_lab_can_be_judged_and_cites_the_seed():
    listed = claims.read_claims("configs/claims.yaml")
    assert len(listed) == 23
    used = {condition.file for claim in listed for condition in (*claim.given, *claim.holds_if)}
    assert used == set(evidence.FILES)


@pytest.mark.parametrize("at_most", [False, True])
def test_decide_is_exact_at_its_edges(at_most):
    low, high = (-0.5, -0.25) if at_most else (0.25, 0.5)
    sign = -1 if at_most else 1
    assert bounds.decide(low, high, sign * 0.25, at_most) == "holds"
    assert bounds.decide(low, high, sign * 0.5, at_most) == "undecided"
    assert bounds.decide(low, high, sign * 0.51, at_most) == "does not hold"


def test_the_interval_of_a_difference_is_the_published_one():
    """Source: Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10: 56/70 less 48/80, 9/10 less 3/10."""
    assert less_scaled(counted(56, 70), counted(48, 80), 1) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    assert less_scaled(counted(9, 10), counted(3, 10), 1) == pytest.approx((0.1705, 0.8090), abs=2e-4)
