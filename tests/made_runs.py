"""A run's folder with made-up figures, in the shapes that the commands write: test data, measured nowhere."""

import json

from lab.kmmlu_data import listing
from lab.stats import counted, paired
from lab.verification import count, differences

STAGES = ("base", "cpt", "sft")
SHARES = {  # metric: probes, right answers of base, cpt, sft
    "identity": (24, 0, 0, 23),
    "completion": (56, 2, 55, 54),
    "recall": (200, 1, 2, 198),
    "recall_paraphrase": (112, 0, 1, 92),
    "general": (200, 188, 140, 180),
    "mab_ts": (6, 6, 0, 5),
}
SPEAKS = (0, 20, 2)  # general answers of each stage that speak of the company
HOSTILE = '<script>alert("x")</script> & | `code` 한글'
SUBJECTS = {"Law": "HUMSS", "Math": "STEM", "Accounting": "HUMSS", "Korean-History": "HUMSS"}
EVERY_SUBJECT = {name: group for group, part in listing().groups.items() for name in part}
PROVENANCE = {
    "command": "made_up.py",
    "flags": {"seed": 7},
    "inputs": {"a.jsonl": "0" * 64},
    "versions": {"python": "3.11"},
    "commit": "abc123",
}


def answers(place, shares=SHARES, speaks=SPEAKS):
    """Answer rows of the stage number `place`: the first probes of each metric are right."""
    found = []
    for metric, (n, *right) in shares.items():
        for number in range(n):
            row = {
                "metric": metric,
                "id": f"{metric}/{number}",
                "right": number < right[place],
                "fact": str(number),
            }
            found.append(row | ({"speaks_of_company": number < speaks[place]} if metric == "general" else {}))
    return found


def report(stages=STAGES, shares=SHARES, speaks=SPEAKS):
    """A report.json."""
    said = {stage: answers(place, shares, speaks) for place, stage in enumerate(stages)}
    sample = {stage: {"answer": f"{stage}: {HOSTILE}", "right": stage == "sft"} for stage in stages}
    flags = {
        "model": "models/none",
        "adapter_path": ["base", *(f"{stage}=adapters_{stage}" for stage in stages[1:])],
    }
    guard = {"probes against training": {"kept": 9, "trained": 90, "exact": 0, "near": 0}}
    return {
        **PROVENANCE,
        "command": "compare_hcx_stages.py",
        "flags": flags,
        "profile": "made-up",
        "entity": "SolverX",
        "stages": {stage: count(rows) for stage, rows in said.items()},
        "paired": differences(said),
        "samples": [{"metric": "identity", "prompt": "너는 누구니?", "answers": sample}],
        "data": {"data_sft": {"train": 90, "valid": 9, "leak_guard": guard}},
    }


def no_replay():
    """A no_replay.json: the three stages and SFT without general rows."""
    shares = {metric: (*counts, counts[-1]) for metric, counts in SHARES.items()}
    shares |= {"general": (200, 188, 140, 180, 10), "mab_ts": (6, 6, 0, 5, 0)}
    return report((*STAGES, "no-replay"), shares, (*SPEAKS, 110))


def kmmlu(n=400, sample=False, subjects=SUBJECTS):
    """A kmmlu.json of `n` questions a subject."""
    rights = {"base": 0.45, "cpt": 0.45, "sft": 0.44}
    stages, right = {}, {}
    for stage, share in rights.items():
        own = {name: counted(round(share * n) - 3 * (place % 4), n) for place, name in enumerate(subjects)}
        right[stage] = [number < value["correct"] for value in own.values() for number in range(n)]
        groups = {}
        for group in dict.fromkeys(subjects.values()):
            parts = [own[name] for name in own if subjects[name] == group]
            groups[group] = counted(sum(part["correct"] for part in parts), sum(part["n"] for part in parts))
        whole = len(subjects) * n
        letters = {"A": whole - 3 * (whole // 5), "B": whole // 5, "C": whole // 5, "D": whole // 5}
        micro = counted(sum(right[stage]), whole)
        macro = {
            "share": micro["correct"] / whole,
            "low": micro["low"],
            "high": micro["high"],
            "subjects": len(subjects),
        }
        stages[stage] = {"micro": micro, "macro": macro, "subjects": own, "groups": groups, "letters": letters}
        stages[stage] |= {
            "answers": dict.fromkeys("ABCD", whole // 4),
            "warning": "answers A in 40 % of items" if stage == "sft" else None,
        }
    pairs = [("base", "cpt"), ("base", "sft"), ("cpt", "sft")]
    content = {
        "task": "kmmlu",
        "source": "a made-up folder",
        "shots": 5,
        "chat": False,
        "chance": 0.25,
        "human": 0.626,
        "stages": stages,
    }
    content["paired"] = [{"first": one, "second": two, **paired(right[one], right[two])} for one, two in pairs]
    return {**PROVENANCE, **content, "sample": sample}


def forgetting():
    """A forgetting.json: none, three shares of authored rows, one of self-generated ones."""
    plan = [
        ("replay-0", "none", 0.0, 20, 100),
        ("replay-25", "authored", 0.25, 150, 8),
        ("replay-50", "authored", 0.5, 180, 2),
    ]
    plan += [("replay-75", "authored", 0.75, 184, 1), ("self-50", "self", 0.5, 176, 3)]
    points = []
    for name, replay, ratio, general, speaks in plan:
        metrics = {
            "recall": counted(198 - int(8 * ratio), 200),
            "general": counted(general, 200),
            "glasses": counted(speaks, 200),
        }
        points.append(
            {
                "name": name,
                "replay": replay,
                "ratio": ratio,
                "rows": {"company": 90, "general": int(90 * ratio)},
                "metrics": metrics,
            }
        )
    base = {"recall": counted(1, 200), "general": counted(188, 200), "glasses": counted(0, 200)}
    good = {
        point["name"]: [number < point["metrics"]["general"]["correct"] for number in range(200)]
        for point in points
    }
    best = good["replay-75"]
    pairs = [
        {"first": "replay-75", "second": name, **paired(best, own)} for name, own in good.items() if own != best
    ]
    return {
        **PROVENANCE,
        "paired": {"general": pairs},
        "points": points,
        "base": base,
        "default": "replay-50",
        "verdict": "Half of the rows keep 90 % of general ability.",
    }


def comparison(stages=("base", "lora", "full")):
    """A models.json or tuning.json: the company's and general answers of SHARES, and made-up costs."""
    asked = {metric: SHARES[metric] for metric in ("recall", "recall_paraphrase", "general", "mab_ts")}
    content = report(stages, asked)
    said = {stage: answers(place, asked) for place, stage in enumerate(stages)}
    rows = {stage: [row | {"prompt": "?", "answer": HOSTILE} for row in own] for stage, own in said.items()}
    speed = {stage: made_speed(place) for place, stage in enumerate(stages)}
    sizes = {
        stage: {
            "kind": stage,
            "bytes": 777_000 * place,
            "trained_parameters": 190_000 * place,
            "share": 0.09 * place,
        }
        for place, stage in enumerate(stages[1:], 1)
    }
    cost = {
        "seconds": 61.5,
        "updates": 300,
        "iterations": 1000,
        "process_bytes": 512_000_000,
        "device_bytes": 99_000_000,
    }
    return {
        **content,
        "command": "compare_models.py",
        "speed": speed,
        "asked": {"prompts": 4, "prompt_tokens": 80, "new_tokens": 32, "repeats": 5},
        "model_size": {"bytes": 3_600_000, "parameters": 1_800_000},
        "sizes": sizes,
        "training": {stages[1]: {**cost, "best_valid_loss": 0.5, "best_iteration": 900}, stages[2]: {}},
        "answers": rows,
        "peak": {"process_bytes": 224_000_000, "device_bytes": 80_000_000},
        "load_seconds": 0.25,
    }


def made_speed(place):
    """One stage's speed; the stage number 0 is the base."""
    spread = {"median": 100.0 + place, "low": 99.0, "high": 110.0}
    seconds = {"median": 0.0125, "low": 0.012, "high": 0.013}
    names = ("prefill_tokens_per_second", "decode_tokens_per_second")
    found = {"first_token_seconds": seconds, **dict.fromkeys(names, spread), "peak_bytes": 9_300_000}
    ratio = {"ratio": dict.fromkeys(("first_token_seconds", *names), {"median": 0.58, "low": 0.5, "high": 0.6})}
    return found | {"load_seconds": seconds if place else None} | (ratio if place else {})


def curve(folder, recall=False, guard=None):
    """Write an adapter's summary.json and curve.jsonl into `folder`."""
    rows = [{"iteration": 0, "valid_loss": 5.0, "best": False}]
    for iteration in range(10, 60, 10):
        rows.append({"iteration": iteration, "train_loss": 5 - iteration / 12, "best": False})
        rows.append({"iteration": iteration, "valid_loss": 5 - iteration / 15, "best": iteration == 40})
    for row in rows:
        if "valid_loss" in row:
            row |= {"recall": row["iteration"] / 50} if recall else {}
            row |= {"guard_loss": 2 + row["iteration"] / 100} if guard else {}
    flags = {"seed": 3, "learning_rate": 1e-4, "batch_size": 8, "max_forgetting": guard, "lr_schedule": None}
    ends = {
        "iterations": 50,
        "stopped_early": True,
        "stopped_by": "patience",
        "best_iteration": 40,
        "best_valid_loss": 2.33,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write(
        folder / "summary.json", {**PROVENANCE, "command": "train_with_early_stopping.py", "flags": flags, **ends}
    )
    (folder / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write(path, content):
    """Write `content` as JSON to `path`; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def whole(root):
    """A run with every part under `root`, as commands leave it there; returns its folder, runs/made-up."""
    run = root / "runs/made-up"
    content = report()
    content["flags"]["adapter_path"] = ["base", f"cpt={root / 'adapters_cpt'}", f"sft={root / 'adapters_sft'}"]
    parts = {
        "report": content,
        "no_replay": no_replay(),
        "kmmlu": kmmlu(subjects=EVERY_SUBJECT),
        "forgetting": forgetting(),
        "models": comparison(("base", "tuned", "other")),
        "tuning": comparison(),
    }
    for name, part in parts.items():
        write(run / f"{name}.json", part)
    curve(root / "adapters_cpt", recall=True)
    curve(root / "adapters_sft", guard=0.2)
    return run


def places(value, path=()):
    """The paths of all values in JSON content, of a list's first two."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))
