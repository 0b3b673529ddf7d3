"""Where answers end: what is read off the files beside the weights, and what plain mlx-lm makes of the result."""

import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx_lm

from lab import answers, carried_files, checkpoints, template_sandbox, turn_ends
from tests.small_checkpoints import (
    PERI_LN,
    convert,
    edit_json,
    peri_ln_tensors,
    refused,
    text_tensors,
    write_checkpoint,
)

ROOT = Path(__file__).resolve().parent.parent
CHATML = (ROOT / "data_general" / "chat_template.jinja").read_text(encoding="utf-8")
# What Think-14B's model card says of its turns: thoughts end with <|im_end|>, too.
TURNS = """{%- for m in messages %}
{%- if m.tool_calls %}
{{- '<|im_start|>assistant -> tool/function_call\n' + m.tool_calls[0].function.arguments | tojson + '<|im_end|><|stop|>\n' }}
{%- else %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + ('<|endofturn|>' if m.role == 'assistant' else '') + '\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
TOKENS = {
    "<|endoftext|>": 0,
    "<|im_start|>": 1,
    "<|im_end|>": 2,
    "<|stop|>": 7,
    "<|endofturn|>": 8,
    "</tool_call>": 9,
}


def files(template=None, generation=None, tokens=TOKENS):
    """What carried_files.check returns for such a checkpoint."""
    added = [{"content": text, "id": number} for text, number in tokens.items()]
    found = {"tokenizer.json": {"added_tokens": added}, "tokenizer_config.json": {}}
    found |= {} if template is None else {"chat_template.jinja": template}
    return found | ({} if generation is None else {"generation_config.json": generation})


def test_the_union_is_in_the_order_of_the_sources():
    ends = turn_ends.find(files(CHATML, {"eos_token_id": [8, 0], "do_sample": True}), [7, 0], 320)
    assert ends.ids == (8, 0, 7, 2)
    assert ends.generation == {"eos_token_id": [8, 0, 7, 2], "do_sample": True}
    assert ends.said == (
        "<|stop|> (7) added: config.json names it, generation_config.json does not",
        "<|im_end|> (2) added: the chat template closes a turn with it",
    )


def test_where_nothing_is_missing_the_file_stays():
    ends = turn_ends.find(files(CHATML, {"eos_token_id": [8, 2]}), [2], 320)
    assert (ends.ids, ends.said, ends.generation) == ((8, 2), (), None)
    assert turn_ends.find(files(CHATML, {"eos_token_id": 2}), [], 320).generation is None


def test_what_ends_thoughts_alone_ends_no_answer():
    """Think-14B: a stop at <|im_end|> would cut every answer off after its thoughts."""
    assert turn_ends.find(files(TURNS), [], 320).ids == (8, 7)
    # Nor where the template closes past answers alone so, and knows no tools; NAVER's model cards name both.
    past = "{% for m in messages %}{{ m.content }}<|im_end|>{% if not loop.last %}<|endofturn|>{% endif %}{% endfor %}"
    assert turn_ends.find(files(past + "{# assistant/think #}"), [], 320).ids == (8, 7)
    assert turn_ends.find(files(past), [], 320).ids == (2, 8, 7)


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{% for m in messages %}{{ m.content }} <|im_end|>{% endfor %}", (2,)),
        ("{% for m in messages %}{{ m.content }}<|im_end|><|im_start|>{% endfor %}", (2,)),  # opens the next at once
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", ()),
        ("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}<|stop|>{% endfor %}", (7,)),
        ("{% for m in messages %}{{ m.content[0].text }}<|stop|>{% endfor %}", (7,)),  # a processor's
        ("{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[2].content }}<|stop|>", ()),
        ("{{ messages[-1].content }}{{ eos_token }}", (0,)),
        # Phi-4-mini's: what stands behind every dialogue, a question's too, is not what the answer ends with.
        ("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{{ eos_token if not add_generation_prompt }}", (2,)),
        ("{% set n = namespace(x=1) %}{% for m in messages %}{{ m.content }}<|stop|>{% break %}{% endfor %}", ()),
        (
            "{% for m in messages %}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}"
            "{{ '</tool_call>' if m.tool_calls else '<|im_end|>' }}{% endfor %}",
            (2,),
        ),
    ],
)  # fmt: skip
def test_templates_of_many_kinds(template, wanted):
    found = files(template)
    found["tokenizer_config.json"]["eos_token"] = {"content": "<|endoftext|>"}
    assert turn_ends.find(found, [], 320).ids == wanted


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ raise_exception('only\ntools') }}", "(only)"),
        ("nothing", "it shows no answer"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "is unsafe"),
        ("{% set n = namespace(__class__=1) %}", "takes no __class__"),
        ("{% set n = namespace() %}{% set n._x = 1 %}", "takes no _x"),
    ],
)
def test_a_template_that_does_not_say_it_is_told(template, reason):
    ends = turn_ends.find(files(template, {"eos_token_id": 3}), [], 320)
    assert ends.ids == (3,) and ends.generation is None
    assert ends.said[0].startswith("the chat template does not say how a turn ends (") and reason in ends.said[0]


def test_a_template_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.05)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i %}{% endfor %}{% endfor %}"
    ends = turn_ends.find(files(loops), [2], 320)
    assert ends.ids == (2,) and "(it computes for more than 0.05 s)" in ends.said[0]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is bounded on Linux alone")
@pytest.mark.parametrize("template", ["{% set x = 'a' * 4000000000 %}{{ x|length }}", "{{ '%4000000000d' % 1 }}"])
def test_a_template_that_wants_gigabytes_gets_none(template):
    before = resource.getrlimit(resource.RLIMIT_AS)
    ends = turn_ends.find(files(template), [2], 320)
    assert ends.ids == (2,) and "(MemoryError)" in ends.said[0]
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is bounded on Linux alone")
def test_no_bound_outlives_a_template_that_is_cut_off_at_its_end(monkeypatch):
    before, set_timer = resource.getrlimit(resource.RLIMIT_AS), signal.setitimer

    def late(which, seconds):
        if not seconds:
            signal.raise_signal(signal.SIGVTALRM)
        return set_timer(which, seconds)

    monkeypatch.setattr(signal, "setitimer", late)
    with pytest.raises(template_sandbox.TooSlow), template_sandbox.limited():
        pass
    set_timer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize(
    "odd",
    [
        {"tokenizer.json": {"added_tokens": [{"content": [1], "id": 5}, 3]}},
        {"tokenizer_config.json": {"added_tokens_decoder": {"5": {"content": {}}, "9" * 5000: {"content": "x"}}}},
        {"tokenizer_config.json": {"chat_template": [{"name": [1], "template": "x"}, 3]}},
        {"added_tokens.json": {"x": [1]}},
    ],
)
def test_files_that_are_odd_on_purpose_name_no_token(odd):
    ends = turn_ends.find({"tokenizer.model": b"", **odd}, [2], 320)
    assert ends.ids == (2,) and turn_ends.added_tokens(odd) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"eos_token_id": ' + "9" * 5000 + "}", "generation_config.json:1: not valid JSON"),
        ('{"eos_token_id": ' + "9" * 400 + "}", "9..., not a token id or a list of them"),
        ('{"note": "\\ud800"}', "generation_config.json: holds half a character"),
    ],
)
def test_a_generation_config_that_could_not_be_written_again_is_refused_before_the_work(
    make_checkpoint, capsys, content, message
):
    """The last was found when all shards were made, and a source perhaps consumed."""
    source = make_checkpoint()
    (source / "generation_config.json").write_text(content, encoding="utf-8")
    error = refused(capsys, source)
    assert message in error and len(error) < 1000


def test_ids_without_a_template_and_beyond_the_vocabulary():
    assert turn_ends.find(files(), [0, 2], 320).generation == {"eos_token_id": [0, 2]}
    none = turn_ends.find(files(), [], 320)
    assert (none.ids, none.generation) == ((), None) and "none is known" in none.said[0]
    ends = turn_ends.find(files(TURNS, {"eos_token_id": [2, 400]}), [], 8)
    assert ends.ids == (2, 7) and ends.generation == {"eos_token_id": [2, 7]}
    assert "400 left out: no token of the model, which has 8" in ends.said
    assert "<|endofturn|> (8) left out: no token of the model, which has 8" in ends.said


def test_an_ordinary_token_that_config_json_alone_names_ends_nothing():
    """transformers' default for a HyperCLOVA X, written out when it saves one, is token 2: any letter."""
    ends = turn_ends.find(files(CHATML, tokens={"<|im_end|>": 302}), [2], 320)
    assert ends.ids == (302,) and "2 of config.json left out" in ends.said[0]
    ends = turn_ends.find(files(CHATML, tokens={"<|im_end|>": 302}), [99999], 320)
    assert ends.ids == (302,) and ends.said[0] == "99999 left out: no token of the model, which has 320"
    assert turn_ends.find({"tokenizer.model": b""}, [2], 320).ids == (2,)  # nothing is known of its tokens
    assert turn_ends.find(files(generation={"eos_token_id": 5}), [], 320).ids == (5,)  # meant


def test_a_model_without_a_chat_template_is_told_in_plan_result_and_card(tmp_path, tokenizer_files, capsys):
    """Base models have none; of any other mlx_lm.generate ends at once, and does not say why."""
    shutil.copytree(tokenizer_files, tmp_path / "source")
    source = write_checkpoint(tmp_path / "source")
    assert convert(source, "--dry-run")[0] == 0 and "no chat template" not in capsys.readouterr().out
    (source / "chat_template.jinja").unlink()
    assert convert(source, "--dry-run")[0] == 0 and capsys.readouterr().out.count("no chat template found: ") == 1
    code, target = convert(source)
    assert code == 0 and capsys.readouterr().out.count("no chat template found: ") == 1
    assert (target / "README.md").read_text(encoding="utf-8").count("no chat template found: ") == 1


@pytest.mark.parametrize(
    "config", [{"chat_template": [{"name": "tool_use", "template": "x"}]}, {"chat_template_type": "deepseek_v32"}]
)
def test_a_chat_template_of_another_kind_is_one(config):
    assert turn_ends.NO_TEMPLATE not in turn_ends.find({**files(), "tokenizer_config.json": config}, [2], 320).said


def test_tokens_and_template_stand_in_more_than_one_file():
    found = {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"2": {"content": "<|im_end|>"}, "x": 1, "3": None},
            "chat_template": [{"name": "tool_use", "template": ""}, {"name": "default", "template": CHATML}],
        },
        "added_tokens.json": {"<|stop|>": 7, "odd": "x"},
        "tokenizer.json": {"added_tokens": [None, {"id": 4}]},
    }
    assert turn_ends.added_tokens(found) == {"<|im_end|>": 2, "<|stop|>": 7}
    assert turn_ends.find(found, [], 320).ids == (2,)
    for odd in ({"tokenizer.json": {"added_tokens": 1}, "tokenizer_config.json": {"chat_template": 3}}, {}):
        assert turn_ends.find(odd, [], 320).ids == ()


@pytest.mark.parametrize("name", ["HyperCLOVAX-SEED-Think-Tiny", "Gemma-2-Tiny"])
def test_it_reads_as_the_tokenizer_does(name):
    from transformers import AutoTokenizer

    folder = ROOT / "models" / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = carried_files.check(checkpoints.carried_files(folder), folder)
    tokens = turn_ends.added_tokens(found)
    assert turn_ends.closing_tokens(found, tokens) == (answers.turn_ends(tokenizer), None)
    turns = [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "<b>네"}]
    render = template_sandbox.compiled(turn_ends.chat_template(found), turn_ends.special_names(found))
    for more in ({}, {"add_generation_prompt": True}):
        assert render(turns, **more) == tokenizer.apply_chat_template(turns, tokenize=False, **more)


def test_a_template_that_is_no_text_is_refused(make_checkpoint, capsys):
    source = make_checkpoint()
    (source / "chat_template.jinja").write_bytes(b"\xff")
    assert f"{source / 'chat_template.jinja'}: not UTF-8 (byte 0)" in refused(capsys, source)


def ends_at_once():
    """Tensors of a model that always says <|im_end|>: no layer adds anything, and one row of the head is not 0."""
    tensors = text_tensors()
    for name, value in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            tensors[name] = mx.zeros_like(value)
    tensors["model.embed_tokens.weight"] = mx.abs(tensors["model.embed_tokens.weight"]) + 1
    tensors["model.norm.weight"] = mx.ones_like(tensors["model.norm.weight"])
    tensors["lm_head.weight"][302] = 1
    return tensors


def test_mlx_lm_server_answers_and_stops_where_a_turn_ends(make_checkpoint, tmp_path, capsys):
    """In a process that knows nothing of the lab; the source names another end token alone."""
    source = make_checkpoint(tensors=ends_at_once())
    (source / "generation_config.json").unlink()
    edit_json(source / "tokenizer_config.json", eos_token="<|endoftext|>")
    code, target = convert(source)
    assert code == 0 and "<|im_end|> (302) added" in capsys.readouterr().out
    assert json.loads((target / "generation_config.json").read_text()) == {"eos_token_id": [302]}
    assert 302 in mlx_lm.load(str(target))[1].eos_token_ids
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "mlx_lm",
        "server",
        "--model",
        str(target),
        "--port",
        port,
        "--max-tokens",
        "9",
    ]
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        said = ask(f"http://127.0.0.1:{port}/v1/chat/completions", server)
    except BaseException:
        print((tmp_path / "log").read_text())
        raise
    finally:
        server.kill()
        server.wait()
    assert (said["choices"][0]["finish_reason"], said["usage"]["completion_tokens"]) == ("stop", 1)


def ask(url, server):
    """The answer to one chat request, as soon as the server listens."""
    body = json.dumps({"messages": [{"role": "user", "content": "안녕"}]}).encode()
    for _ in range(600):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            assert server.poll() is None
            time.sleep(0.1)
    raise AssertionError("the server does not listen")


def test_a_14b_that_names_no_end_stops_after_its_answer_not_its_thoughts(make_checkpoint):
    source = make_checkpoint("text-only", peri_ln_tensors(), **PERI_LN)
    (source / "chat_template.jinja").write_text(TURNS, encoding="utf-8")
    (source / "generation_config.json").write_text('{"temperature": 0.5}', encoding="utf-8")
    edit_json(source / "tokenizer_config.json", eos_token="<|endoftext|>")
    code, target = convert(source)
    _, tokenizer, config = mlx_lm.load(str(target), return_config=True)
    ends = tokenizer.convert_tokens_to_ids(["<|endofturn|>", "<|stop|>"])
    assert code == 0 and config["eos_token_id"] == ends
    assert json.loads((target / "config.json").read_text())["eos_token_id"] == ends
    assert json.loads((target / "generation_config.json").read_text()) == {
        "temperature": 0.5,
        "eos_token_id": ends,
    }
    assert tokenizer.eos_token_ids == {*ends, tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))["end_tokens"]
    assert summary["ids"] == ends and "closes a turn" in summary["said"][-1]
    card = (target / "README.md").read_text(encoding="utf-8")
    assert f"| End tokens | {', '.join(map(str, ends))}; " in card
