"""Base and adapters side by side in one load of the model: the same questions, then what each stage costs.

A comparison is a report (see lab.report) with more: {"answers": {stage: answer rows}, "speed": as lab.speed.measure has it,
"asked": how speed was measured, "model_size", "sizes": {stage: lab.costs.size}, "training": {stage: lab.costs.training},
"load_seconds", "peak": {"process_bytes", "device_bytes"} of loading and answering}.
"""

from functools import partial

from lab import stages, verification
from lab.cli import LabError, write_summary
from lab.hub import model_folder
from lab.lineage import SUMMARY, other_model
from lab.probes import CHAT, Probe
from lab.records import read_jsonl, refuse

METRICS = ("recall", "recall_paraphrase", "general", "general_mixed", "general_unmixed", "glasses", "mab_ts")
OWN = "questions"
SAMPLES = {OWN: 20, "recall": 2, "recall_paraphrase": 4, "general": 4, "mab_ts": 1}  # on the page
SAMPLES |= {"identity": 1, "completion": 1}
MAKES = {"models.json": "make gemma", "tuning.json": "make compare-tuning"}  # what writes these files


def read_questions(path):
    """The probes of a file of one's own: a JSON object a line, {"question", "accept": [strings], optional}.

    Without "accept" an answer is shown and not judged. Raises LabError that names every bad row.
    """
    rows = read_jsonl(path)
    refuse([f"{path}:{number}: {problem}" for number, row in rows if (problem := _problem(row))])
    found = []
    for number, row in rows:
        accept = row.get("accept") or []
        accept = (accept,) if isinstance(accept, str) else tuple(accept)
        name = f"{OWN}/{number}"
        found.append(Probe(name, OWN, row["question"].strip(), accept, judged=bool(accept)))
    return found


def _problem(row):
    if unknown := sorted(row.keys() - {"question", "accept"}):
        return f'unknown key "{unknown[0]}"; a row is {{"question", "accept"}}'
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        return '"question" is empty or not a string; write the question'
    accept = row.get("accept")
    texts = [accept] if isinstance(accept, str) else [] if accept is None else accept
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        return '"accept" is not a list of strings; list those that make an answer right, or leave it out'
    return None


def check_stages(args):
    """The stages of --adapter-path: the base, once, and adapters that were trained on --model. Raises LabError."""
    named = stages.stages_of(args)
    bare = [stage.name for stage in named if stage.adapter is None]
    if len(bare) != 1 or len(named) < 2:
        raise LabError("--adapter-path: name base once and at least one adapter, `base tuned=DIR`")
    for stage in named:
        if stage.adapter:
            _check_model(stage.adapter, args.model)
    return named


def _check_model(adapter, model):
    """Raise LabError for an adapter of other weights; one from elsewhere names none."""
    if (adapter / SUMMARY).is_file() and (other := other_model(adapter, model)):
        remedy = "name the model that it was trained on, or train it again"
        raise LabError(f"{adapter}: trained on {other}; {remedy}")


def metrics_of(args):
    """What is asked besides --questions: --metrics, or without either of them all of METRICS."""
    return tuple(args.metrics or (() if args.questions else METRICS))


def measured(args):
    """The comparison that parsed flags ask for. Raises LabError for bad input before anything is loaded."""
    model_folder(args.model)
    check_stages(args)
    metrics, probes, entity = metrics_of(args), [], ""
    own = read_questions(args.questions) if args.questions else []
    if metrics:
        probes, entity = verification.load_probes(args.knowledge, args.general, metrics, args.limit)
    content, answers = stages.run(args, metrics, (own + probes, entity), partial(_costs, args))
    content["samples"] = verification.samples(answers, SAMPLES)
    return {"profile": args.profile, **content, "answers": answers}


def samples(content, number):
    """`number` questions of each metric with every stage's answers, evenly spread, for the terminal."""
    answers = content["answers"]
    asked = dict.fromkeys(row["metric"] for row in next(iter(answers.values()), ()))
    return verification.samples(answers, dict.fromkeys(asked, number))


def read(path):
    """The comparison in a file. Raises LabError where it is missing or none."""
    from lab import measured

    return measured.read_comparison(path, f"`{MAKES.get(path.name, 'make gemma')}` writes it")


def _costs(args, model, tokenizer, named, probes, load_seconds):
    """What each stage costs, measured on the loaded model."""
    from lab import costs, models, speed

    _, device = costs.peak_memory()  # before lab.speed begins to count anew
    models.switch_adapter(model, None)
    size = costs.model_size(model, args.model)
    prompts = models.chat_prompts(tokenizer, _spread(probes, args.speed_prompts))
    print(f"speed: {len(prompts)} questions, {args.speed_tokens} tokens each, {args.repeats} rounds", flush=True)
    found = speed.measure(model, named, prompts, args.speed_tokens, args.repeats)
    trained = {stage.name: stage.adapter for stage in named if stage.adapter}
    return {
        "speed": found,
        "asked": {
            "prompts": len(prompts),
            "prompt_tokens": sum(map(len, prompts)),
            "new_tokens": args.speed_tokens,
            "repeats": args.repeats,
        },
        "model_size": size,
        "sizes": {name: costs.size(folder, size["parameters"]) for name, folder in trained.items()},
        "training": {name: costs.training(folder) for name, folder in trained.items()},
        "load_seconds": round(load_seconds, 3),
        "peak": {"process_bytes": costs.peak_memory()[0], "device_bytes": device},
    }


def _spread(probes, number):
    """`number` questions of the chat probes, evenly spread, or all where there are fewer."""
    chat = [probe.prompt for probe in probes if probe.kind == CHAT] or [probe.prompt for probe in probes]
    number = min(number, len(chat))
    return [chat[(2 * place + 1) * len(chat) // (2 * number)] for place in range(number)]


def save(args, content):
    """Write --output: the comparison with the questions, model and adapters that it was made from."""
    asked = [args.questions] if args.questions else []
    asked += [args.knowledge, args.general] if metrics_of(args) else []
    write_summary(args.output, args, [*asked, *stages.model_files(args, stages.stages_of(args))], content)
