"""Ask the tuned model:  python infer_gemma_lora.py --prompt "SolverX 본사는 어디인가요?"

  python infer_gemma_lora.py                                   a chat, on a terminal
  python infer_gemma_lora.py --adapter-path adapters --file questions.jsonl --output answers.jsonl

As infer_gemma.py, with an adapter on the model; compare_models.py sets several adapters side by side.

Exit codes: 0 answered, 1 bad input, 2 bad usage, 75 stopped by Ctrl-C (with --output, --resume goes on).
"""

import sys

from lab import inference
from lab.cli import finish


def main(argv=None):
    return inference.run(inference.parse_args(__doc__, argv, adapter=True))


if __name__ == "__main__":
    sys.exit(finish(main))
