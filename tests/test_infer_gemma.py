"""infer_gemma and infer_gemma_lora on real small models: one question, files, standard input, a chat on a terminal."""

import codecs
import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

import infer_gemma
import infer_gemma_lora
from lab import adapters, inference, models, questions, stages, terminal_chat
from lab.cli import LabError
from lab.conversation import Asker, Conversation
from lab.hub import GEMMA, GEMMA_TINY
from lab.sampling import Sampling

QUESTIONS = ("안녕?", "프랑스의 수도는 어디야?", "고마워.", "사과를 영어로 뭐라고 해?", "하늘은 왜 파란가요?")
PATIENCE = 120  # seconds; the machine may have other work


@pytest.fixture(scope="module")
def expected(model_8bit):
    """The greedy answers to QUESTIONS."""
    return models.answer(*models.load(model_8bit), list(QUESTIONS))


@pytest.fixture
def infer(run, model_8bit):
    """A function that runs infer_gemma on the small model, as the shell would."""
    return lambda *flags: run(infer_gemma.main, "--model", model_8bit, *flags)


@pytest.fixture
def typed(monkeypatch):
    """A function that puts text or bytes on standard input."""

    def give(text):
        data = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return give


@pytest.fixture
def questions_file(write_rows):
    return write_rows("questions.jsonl", [{"question": text} for text in QUESTIONS])


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_question_leaves_nothing_but_the_answer_on_standard_output(infer, expected, typed):
    assert infer("--prompt", QUESTIONS[1]) == (0, f"{expected[1]}\n", "")
    typed(QUESTIONS[1])
    assert infer("-p", "-") == (0, f"{expected[1]}\n", "")


def test_verbose_and_a_cut_are_told_on_standard_error(infer, expected):
    code, out, err = infer("--prompt", QUESTIONS[1], "--max-tokens", 3, "--verbose")
    device, loaded, cut, figures = err.splitlines()
    assert code == 0 and expected[1].startswith(out.strip()) and out.strip()
    assert device.startswith("device: ") and loaded.startswith("loaded ") and cut == "[cut at 3 tokens]"
    assert "first token after" in figures and figures.endswith("tokens/s, answer 3 tokens]")


def test_lines_of_standard_input_are_answered_each_on_its_own(infer, expected, typed):
    typed(f"{QUESTIONS[0]}\n\n  {QUESTIONS[2]}")
    assert infer() == (0, f"{expected[0]}\n{expected[2]}\n", "")


@pytest.mark.parametrize("name", ["q.jsonl", "q.txt", "to standard output"])
def test_a_file_is_answered_in_order_with_a_summary(infer, expected, write_rows, tmp_path, name, monkeypatch):
    rows = [{"prompt": QUESTIONS[0]}, *({"question": text, "accept": ["x"]} for text in QUESTIONS[1:4])]
    rows.append({"messages": [{"role": "user", "content": QUESTIONS[4]}]})
    path = write_rows("q.txt", QUESTIONS) if name == "q.txt" else write_rows("q.jsonl", rows)
    wanted = [
        {"line": line, "prompt": question, "answer": answer, "ended": True}
        for line, (question, answer) in enumerate(zip(QUESTIONS, expected, strict=True), 1)
    ]
    if name == "to standard output":
        code, out, err = infer("--file", path, "--batch-size", 2)
        assert (code, [json.loads(line) for line in out.splitlines()], err) == (0, wanted, "")
        return
    output = tmp_path / "new" / "answers.jsonl"
    assert infer("--file", path, "--output", output) == (0, "", f"{output}: {len(wanted)} answers\n")
    assert rows_of(output) == wanted
    summary = json.loads((output.parent / "answers.summary.json").read_text(encoding="utf-8"))
    assert (summary["answers"], summary["cut"], summary["sampling"]["temp"]) == (5, 0, 0)
    assert sorted(path.name for path in output.parent.iterdir()) == ["answers.jsonl", "answers.summary.json"]


DRAWN = ("--preset", "solar", "--temp", 3, "--top-p", 1, "--seed", 5, "--max-tokens", 12)


def test_a_seed_draws_the_same_one_by_one_and_in_any_batch(infer, questions_file, tmp_path):
    answers = []
    for size in (1, 2, 64):
        output = tmp_path / f"{size}.jsonl"
        assert infer("--file", questions_file, "--output", output, "--batch-size", size, *DRAWN)[0] == 0
        answers.append(rows_of(output))
    assert answers[0] == answers[1] == answers[2]
    assert infer("--prompt", QUESTIONS[0], *DRAWN)[1] == f"{answers[0][0]['answer']}\n"
    assert infer("--file", questions_file, *DRAWN, "--seed", 6)[1] != infer("--file", questions_file, *DRAWN)[1]


def test_a_killed_run_goes_on_behind_what_it_has_and_ends_as_if_it_had_not_been_killed(
    infer, model_8bit, write_rows, tmp_path
):
    questions = write_rows("many.txt", [f"{text} {number}" for number in range(10) for text in QUESTIONS])
    output, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    partial = tmp_path / "killed.jsonl.partial"
    command = [sys.executable, "infer_gemma.py", "--model", model_8bit, "--file", questions, "--output", output]
    process = subprocess.Popen([*map(str, command), "--batch-size", "1", *map(str, DRAWN)])
    until = time.monotonic() + PATIENCE
    while not partial.exists() or partial.read_bytes().count(b"\n") < 4:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not output.exists()
    with open(partial, "ab") as file:
        file.write(b'{"line": 3, "pro')  # a kill in the middle of a line
    same = ("--file", questions, "--output", output, "--batch-size", 64)
    code, _, err = infer(*same, *DRAWN)
    assert code == 1 and err.endswith("; --resume goes on, --overwrite begins anew\n")
    code, _, err = infer(*same, *DRAWN, "--temp", 0.5, "--resume")
    assert code == 1 and "another model or settings; --overwrite begins anew" in err
    assert infer(*same, *DRAWN, "--resume")[0] == 0
    summary = json.loads((tmp_path / "killed.summary.json").read_text(encoding="utf-8"))
    assert 3 <= summary["resumed_after"] < 50 and summary["answers"] == 50
    assert infer("--file", questions, "--output", whole, *DRAWN)[0] == 0
    assert output.read_bytes() == whole.read_bytes() and not partial.exists()


@pytest.mark.parametrize("changed", ["weights", "scale"])
def test_a_run_with_other_weights_or_another_scale_never_goes_on(
    run, random_gemma, random_adapter, questions_file, tmp_path, changed
):
    """A folder of the hub has no summary of its own, and its config is that of every model tuned from it."""
    model, output = shutil.copytree(random_gemma, tmp_path / "model"), tmp_path / "answers.jsonl"
    adapter = random_adapter(model, tmp_path)
    weights, config = next(model.glob("*.safetensors")), adapter / adapters.CONFIG
    asked = ("--model", model, "--adapter-path", adapter, "--file", questions_file, "--output", output)

    def begin():
        args = inference.parse_args("", [*map(str, asked), "--max-tokens", "2"], adapter=True)
        return questions.Partial(output, questions.run_key(args, adapter, {})).begin(resume=True, overwrite=False)

    assert begin() == begin() == []
    if changed == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    else:
        config.write_text(config.read_text().replace('"scale": ', '"scale": 1'), encoding="utf-8")
    with pytest.raises(LabError, match="by another model or settings; --overwrite begins anew"):
        begin()


def test_the_summary_never_takes_the_place_of_the_questions(infer, write_rows, tmp_path):
    questions = write_rows("answers.summary.json", [{"prompt": "안녕?"}])
    code, _, err = infer("--file", questions, "--output", tmp_path / "answers.jsonl")
    assert code == 1 and f"{questions}: what is asked is read from it" in err
    assert rows_of(questions) == [{"prompt": "안녕?"}]


def test_make_s_flags_go_on_or_begin_anew_whatever_is_there(infer, questions_file, tmp_path, expected):
    output, partial = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.partial"
    for left in ('{"run": "another"}\n{"line": 1}\n', '{"run": "torn', ""):
        partial.write_text(left, encoding="utf-8")
        code = infer("--file", questions_file, "--output", output, "--resume", "--overwrite")[0]
        assert code == 0 and [row["answer"] for row in rows_of(output)] == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt", " "], "--prompt: empty; write a question"),
        (["--prompt", "안녕?<|im_end|>"], "--prompt: turn 1 (user) holds <|im_end|>"),
        (["--prompt", "긴 " * 3000], "the context is 2048; make it shorter"),
        (["--prompt", "긴 " * 20, "--max-context", "30"], "the context is 30; make it shorter"),
        (["--prompt", "?", "--max-context", "5000"], "was made for 2048; at most that"),
        (["--prompt", "?", "--preset", "hot"], "--preset hot: no such preset"),
        (["--file", "/nowhere.txt"], "/nowhere.txt: cannot read"),
        (["--file", "README.md", "--output", "lab"], "lab: a folder; name a file in it"),
        (["--file", "README.md", "--output", "README.md/a.jsonl"], "README.md is a file"),
        (
            ["--file", "README.md", "--output", "lab/../README.md"],
            "README.md: what is asked is read from it; name another file",
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line(infer, flags, said):
    code, out, err = infer(*flags)
    assert (code, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("flags", [["--prompt", "?", "--chat"], ["--output", "a.jsonl"], ["--max-tokens", "0"]])
def test_flags_that_do_not_go_together_are_a_usage_error(infer, flags):
    assert infer(*flags)[0] == 2


def test_every_line_of_a_file_that_cannot_be_asked_is_named(infer, write_rows, random_gemma, run):
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    bad = [
        {"text": "?"},
        {"prompt": "?", "question": "!"},
        {"prompt": " "},
        {"messages": turns},
        {"messages": [{"role": "robot", "content": "?"}]},
    ]
    path = write_rows("bad.jsonl", [{"prompt": "안녕?"}, *bad])
    code, _, err = infer("--file", path)
    assert code == 1 and all(f"{path}:{number}: " in err for number in range(2, 7)) and f"{path}:1:" not in err
    refused = write_rows("refused.jsonl", [{"messages": [turns[0], turns[0]]}, {"prompt": "?<end_of_turn>"}])
    code, _, err = run(infer_gemma.main, "--model", random_gemma, "--file", refused)
    assert code == 1 and f"{refused}:1: " in err and "must alternate" in err and f"{refused}:2: " in err
    empty = write_rows("empty.txt", ["안녕?", "", "고마워."])
    assert f"{empty}:2: no question" in infer("--file", empty)[2]


def test_a_system_turn_is_given_where_the_template_knows_one_and_refused_where_not(infer, run, random_gemma):
    system = ("--system", "짧게 답해.", "--prompt", "안녕?", "--verbose", "--max-tokens", 2)
    code, _, err = infer(*system)
    longer = int(err.split("prompt ")[1].split()[0])
    assert code == 0 and longer > int(infer(*system[2:])[2].split("prompt ")[1].split()[0])
    code, _, err = run(infer_gemma.main, "--model", random_gemma, *system[:4])
    wanted = "--system: the model's chat template knows no system turn; write it into the question"
    assert (code, err) == (1, f"error: {wanted}\n")


def test_the_tuned_model_needs_an_adapter_that_fits(run, model_8bit, random_adapter, tmp_path):
    lora = ("--model", model_8bit, "--prompt", "안녕?")
    code, _, err = run(infer_gemma_lora.main, *lora, "--adapter-path", tmp_path / "none")
    assert code == 1 and "no adapter here (no adapter_config.json)" in err
    base = run(infer_gemma.main, *lora)
    tuned = run(infer_gemma_lora.main, *lora, "--adapter-path", random_adapter(model_8bit, tmp_path, 0.2))
    assert tuned[0] == base[0] == 0 and tuned[1] != base[1]


def test_another_model_s_adapter_is_one_line(run, model_8bit, random_adapter, tmp_path):
    adapter = random_adapter(model_8bit, tmp_path)
    smaller = {name: value[:8] for name, value in adapters.read_weights(adapter / adapters.WEIGHTS).items()}
    adapters.save(adapter, smaller, adapters.read_config(adapter))
    lora = ("--model", model_8bit, "--prompt", "안녕?", "--adapter-path", adapter)
    code, out, err = run(infer_gemma_lora.main, *lora)
    assert (code, out) == (1, "") and "does not fit" in err and err.count("\n") == 1


def test_an_adapter_of_another_model_that_fits_is_told(run, model_8bit, random_adapter, tmp_path):
    adapter = random_adapter(model_8bit, tmp_path)
    config = adapters.read_config(adapter)
    lora = ("--model", model_8bit, "--prompt", "안녕?", "--adapter-path", adapter)
    for trained_on, said in (
        ("models/Gemma", f"warning: {adapter} was trained on models/Gemma; this is {model_8bit}\n"),
        (f"elsewhere/{model_8bit.name}", ""),
    ):
        (adapter / adapters.CONFIG).write_text(json.dumps({**config, "model": trained_on}), encoding="utf-8")
        code, _, err = run(infer_gemma_lora.main, *lora)
        assert (code, err) == (0, said)


def test_each_gemma_has_an_adapter_of_its_own_by_default():
    for model, adapter in ((GEMMA_TINY, "adapters_gemma_tiny"), ("models/elsewhere", "adapters")):
        args = inference.parse_args("", ["--model", str(model)], adapter=True)
        assert args.adapter_path == [adapter]
    assert inference.parse_args("", []).adapter_path == [stages.BASE]
    assert inference.parse_args("", []).model in (GEMMA, GEMMA_TINY)


@pytest.mark.parametrize(
    ("kind", "asked", "context"), [("gemma2", None, 4096), ("gemma2", 6000, 6000), ("llama", None, 8192)]
)
def test_gemma_keeps_to_its_sliding_window_unless_asked(kind, asked, context, tmp_path):
    config = {"model_type": kind, "max_position_embeddings": 8192, "sliding_window": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    flags = ["--model", str(tmp_path), *(["--max-context", str(asked)] if asked else [])]
    assert inference.context_of(inference.parse_args("", flags)) == context


def test_what_a_terminal_cannot_show_ends_no_answer(model_8bit, expected):
    command = [sys.executable, "infer_gemma.py", "--model", model_8bit, "--prompt", QUESTIONS[0]]
    narrow = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=PATIENCE, env=narrow)
    assert (done.returncode, done.stdout.decode("unicode_escape")) == (0, f"{expected[0]}\n"), done.stderr


def test_a_closed_pipe_is_left_quietly(model_8bit, questions_file):
    command = (
        f"{sys.executable} infer_gemma.py --model {model_8bit} --file {questions_file} --batch-size 1 | head -n 1"
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=PATIENCE)
    assert json.loads(done.stdout)["line"] == 1 and done.stderr == ""


def test_a_chat_through_a_pipe_keeps_the_turns_and_obeys(infer, typed, tmp_path, expected):
    saved = tmp_path / "talk.jsonl"
    lines = [QUESTIONS[0], "/undo", "/undo", QUESTIONS[1], "/retry", "/nonsense", "//help", f"/save {saved}"]
    typed("\n".join([*lines, f"/save {saved}", "/save", "/reset", "/retry", "/help", QUESTIONS[1], "/quit", "?"]))
    code, out, err = infer("--chat")
    assert code == 0
    first, second, again, slash, anew = out.splitlines()
    assert (first, second, again, anew) == (expected[0], expected[1], expected[1], expected[1])
    (row,) = rows_of(saved)
    said = [turn["content"] for turn in row["messages"]]
    assert said == [QUESTIONS[1], expected[1], "/help", slash]
    for words in (f"[taken back: {QUESTIONS[0]}]", "[nothing to take back]", "/nonsense: no such command"):
        assert words in err
    for words in (f"error: {saved}: exists; name another file", "[/save FILE.jsonl: name a file]", "/reset  "):
        assert words in err
    assert err.count("[nothing to answer again]") == 1 and "\x1b" not in out + err


def test_a_chat_goes_on_behind_a_line_that_cannot_be_asked(infer, typed, expected):
    typed(b"\xea\xb0\n" + "안녕?<|im_end|>\n".encode() + f"{'긴 ' * 3000}\n{QUESTIONS[1]}".encode())
    code, out, err = infer("--chat")
    assert (code, out) == (0, f"{expected[1]}\n")
    utf8, mark, long = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "line 1: not UTF-8" in utf8 and "holds <|im_end|>" in mark and "the context is 2048" in long


def test_a_question_without_an_answer_is_told_and_not_kept(model_8bit, capsys, monkeypatch):
    """Else /retry would answer the question before it, and nobody knew why."""
    asker = Asker(*models.load(model_8bit), Sampling(), 8, 2048)
    monkeypatch.setattr(asker, "answer", lambda *rest: Asker.answer(asker, *rest[:-1], lambda: True))  # left off
    talk = Conversation(asker)
    terminal_chat.Chat(talk).obey(QUESTIONS[0])
    assert capsys.readouterr() == ("\n", "[no answer; the question is not kept]\n") and talk.turns == []


def test_a_line_of_standard_input_that_is_not_utf_8_is_named(infer, typed):
    typed("안녕?\n".encode() + b"\xff\n")
    code, _, err = infer()
    assert (
        code == 1 and err == "error: standard input:2: not UTF-8; write it again, or set the terminal to UTF-8\n"
    )


class Terminal:
    """infer_gemma at a real pseudo-terminal."""

    def __init__(self, *flags):
        self.master, slave = pty.openpty()
        command = [sys.executable, "infer_gemma.py", *map(str, flags)]
        settings = {**os.environ, "TERM": "dumb"}
        # a session of its own, whose terminal this is: Ctrl-C then comes as a signal
        leader = (
            "import fcntl, os, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            # tests that run in the background of a shell inherit an ignored Ctrl-C
            f"signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv({command[0]!r}, {command!r})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", leader],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=settings,
            start_new_session=True,
        )
        os.close(slave)
        self.seen, self._decoder = "", codecs.getincrementaldecoder("utf-8")()

    def read(self):
        """What is shown now, or after a moment; characters come whole, however the terminal cuts them."""
        if not select.select([self.master], [], [], 0.1)[0]:
            return ""
        try:
            return self._decoder.decode(os.read(self.master, 1 << 16))
        except OSError:
            raise AssertionError("the terminal is closed") from None

    def until(self, *marks):
        """What is shown until the last of `marks` has come, in order."""
        end, shown, place = time.monotonic() + PATIENCE, self.seen, 0
        for mark in marks:
            while (found := shown.find(mark, place)) < 0:
                assert time.monotonic() < end, shown
                shown += self.read()
            place = found + len(mark)
        self.seen = shown[place:]
        return shown[:place]

    def more(self, characters):
        """Wait until so many more are shown."""
        end = time.monotonic() + PATIENCE
        while len(self.seen) < characters:
            assert time.monotonic() < end, self.seen
            self.seen += self.read()

    def type(self, text):
        os.write(self.master, text.encode())

    def press_ctrl_c(self, mark):
        """Until `mark` is shown: Python loses a Ctrl-C that comes between its prompt and its waiting for a key."""
        self.seen, end = "", time.monotonic() + PATIENCE
        while mark not in self.seen:
            assert time.monotonic() < end, self.seen
            self.type("\x03")
            again = time.monotonic() + 2
            while mark not in self.seen and time.monotonic() < again:
                self.seen += self.read()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


def test_a_chat_on_a_terminal_streams_and_ctrl_c_stops_the_answer_not_the_program(random_gemma):
    terminal = Terminal("--model", random_gemma, "--max-tokens", 1500)
    try:
        terminal.until("/help lists", "\n> ")
        for _ in range(3):  # on a busy machine the answer may be over before Ctrl-C comes
            terminal.type("파리는?\n")
            terminal.until("파리는?", "\n")
            terminal.more(8)  # it streams: the answer's beginning, long before its end
            terminal.type("\x03")
            shown = terminal.until("]\r\n> ")
            if "[stopped]" in shown:
                break
        assert shown.endswith("[stopped]\r\n> ") and "[cut" not in shown
        terminal.type("/undo\n")
        terminal.until("[taken back: 파리는?]", "\n> ")
        terminal.press_ctrl_c("Ctrl-C again")
        terminal.until("\n> ")
        terminal.press_ctrl_c("\n")
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.close()


def test_finished_answers_are_kept_or_replaced_as_the_flags_say(infer, questions_file, tmp_path):
    output = tmp_path / "answers.jsonl"
    asked = ("--file", questions_file, "--output", output)
    assert infer(*asked, "--max-tokens", 3)[0] == 0
    first = output.read_bytes()
    code, _, error = infer(*asked, "--max-tokens", 5)
    assert code == 1 and f"{output}: exists; --overwrite replaces it" in error and output.read_bytes() == first
    os.utime(output, (1_000_000, 1_000_000))
    code, _, error = infer(*asked, "--max-tokens", 3, "--resume")
    assert (
        code == 0 and "these answers are finished; nothing to do" in error and output.stat().st_mtime > 1_000_000
    )
    assert infer(*asked, "--max-tokens", 5, "--resume", "--overwrite")[0] == 0 and output.read_bytes() != first
