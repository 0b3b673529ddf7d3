"""Ask the base model, before any tuning:  python infer_gemma.py --prompt "프랑스의 수도는 어디인가요?"

  python infer_gemma.py                                        a chat, on a terminal
  python infer_gemma.py --file questions.jsonl --output answers.jsonl
  echo "안녕?" | python infer_gemma.py --preset solar          a question a line; empty lines are passed over

Answers alone go to standard output. Greedy, unless --temp or --preset say otherwise; the same seed gives the same answers.

Exit codes: 0 answered, 1 bad input, 2 bad usage, 75 stopped by Ctrl-C (with --output, --resume goes on).
"""

import sys

from lab import inference
from lab.cli import finish


def main(argv=None):
    return inference.run(inference.parse_args(__doc__, argv))


if __name__ == "__main__":
    sys.exit(finish(main))
