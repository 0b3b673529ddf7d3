"""A chat on the terminal over lab.conversation: answers as they come on stdout, everything else on stderr."""

import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.cli import LabError
from lab.records import write_jsonl

HELP = """\
/reset           begin anew
/undo            take back the last question and its answer
/retry           answer the last question again
/save FILE.jsonl keep the conversation, as a row that can be trained on
/help  /quit     this list; leave (so does the end of input)
//...            a question that begins with a slash
Ctrl-C stops an answer; at the prompt, twice in a row, it leaves."""
PROMPT = "> "


def tell(text):
    """A line for the person, not for what reads the answers."""
    print(text, file=sys.stderr, flush=True)


def lines(prompt=""):
    """The lines of stdin without their ends, until it ends or Ctrl-C comes twice in a row; bytes not UTF-8 as surrogates.

    On a terminal with `prompt` in front and, where Python has it, readline's history.
    """
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    at_a_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not (prompt and at_a_terminal):
        yield from (line.removesuffix("\n") for line in iter(sys.stdin.readline, ""))
        return
    with suppress(ImportError):
        import readline  # noqa: F401  (input() then edits lines, Hangul by whole syllables)
    stopped = False
    while True:
        try:
            line = input(prompt)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            if stopped:
                print()
                return
            tell("\n(Ctrl-C again, /quit or the end of input leaves)")
            stopped = True
            continue
        stopped = False
        yield line


def check_text(text, where):
    """Raise LabError at `where` for a text that held bytes which are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LabError(f"{where}: not UTF-8; write it again, or set the terminal to UTF-8") from error


@contextmanager
def ctrl_c_stops():
    """A function that says whether Ctrl-C has come: the first only asks, the second raises KeyboardInterrupt."""
    asked = []

    def note(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


class Chat:
    """The commands and questions of one conversation."""

    def __init__(self, conversation, verbose=False):
        self.conversation, self.verbose = conversation, verbose
        self.commands = {"/reset": self.reset, "/undo": self.undo, "/retry": self.retry, "/help": self.help}

    def run(self):
        """Answer and obey line by line until the input ends or /quit."""
        for number, line in enumerate(lines(PROMPT), 1):
            text = line.strip()
            if text in ("/quit", "/exit"):
                return
            try:
                check_text(text, f"line {number}")
                self.obey(text)
            except LabError as error:
                tell(f"error: {error}")

    def obey(self, text):
        """One line: nothing, a command or a question."""
        command, _, rest = text.partition(" ")
        if text.startswith("//"):
            self.ask(text[1:])
        elif command == "/save":
            self.save(rest.strip())
        elif text in self.commands:
            self.commands[text]()
        elif text.startswith("/"):
            tell(f"{command}: no such command; /help lists them, // in front asks it as it is")
        elif text:
            self.ask(text)

    def ask(self, text):
        """Answer `text` aloud."""
        conversation = self.conversation
        before = conversation.left_out
        with ctrl_c_stops() as stopped:
            show_pieces(conversation.ask(text, stopped))
            if stopped():
                tell("[stopped]")
        if conversation.left_out > before:
            turns = conversation.left_out
            tell(
                f"[the context of {conversation.asker.context} tokens is full: the oldest {turns} turns are left out]"
            )
        tell_about(conversation.asker, conversation.last, self.verbose)
        if not conversation.last.text.strip():
            tell("[no answer; the question is not kept]")

    def reset(self):
        self.conversation.reset()
        tell("[begun anew]")

    def undo(self):
        question = self.conversation.undo()
        tell("[nothing to take back]" if question is None else f"[taken back: {question}]")

    def retry(self):
        question = self.conversation.undo()
        if question is None:
            tell("[nothing to answer again]")
            return
        if self.conversation.asker.sampling.temp == 0:
            tell("[at temp 0 the same answer comes again; --temp 0.7 draws others]")
        self.ask(question)

    def help(self):
        tell(HELP)

    def save(self, name):
        """Write the conversation to a new file."""
        path = Path(os.path.expanduser(name))
        if not name or not self.conversation.turns:
            tell("[nothing to save yet]" if name else "[/save FILE.jsonl: name a file]")
        elif path.exists():
            tell(f"error: {path}: exists; name another file")
        else:
            write_jsonl(path, [{"messages": self.conversation.messages()}])
            tell(f"[saved: {path}]")


def show_pieces(pieces):
    """Print an answer as it comes, and a line break behind it."""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def tell_about(asker, answer, verbose):
    """Say that an answer was cut, where it was, and with `verbose` how fast it came."""
    if cut := asker.cut(answer):
        tell(cut)
    if verbose:
        tell(f"[{answer.figures()}]")
