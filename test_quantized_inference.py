"""Does the 8-bit model load and speak? Prints the device, load time, memory, answers and speed:

  python test_quantized_inference.py --prompt "프랑스의 수도는 어디인가요?" --prompt "안녕?"

Exit codes: 0 it answers, 1 bad input, 2 bad usage, 3 every answer is empty.
"""

import sys
import time

from lab import stages
from lab.cli import CheckFailed, finish, read_json, write_summary
from lab.hub import model_folder
from lab.report import one_line

PROMPTS = (  # what the embedded model knows, too
    *("안녕하세요.", "프랑스의 수도는 어디인가요?", "하늘은 왜 파란가요?"),
    "Python으로 Hello World 코드를 써 줘.",
)
GIGABYTE = 1e9


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="a question; may stand again")
    stages.add_model_flags(parser)
    return parser.parse_args(argv)


def quantization(model_path):
    """How the weights are stored, in words, from the model's config.json."""
    stored = read_json(model_path / "config.json", "convert the model again").get("quantization")
    return f"{stored['bits']} bits, groups of {stored['group_size']}" if stored else "not quantized"


def measure(args, model, tokenizer, stage, prompts):
    """Answer `prompts` with the stage's adapter, aloud; returns answers, tokens, tokens_per_second."""
    from lab import models

    models.switch_adapter(model, stage.adapter)
    models.answer(model, tokenizer, prompts[:1], 2)  # the first call compiles
    started = time.perf_counter()
    answers = models.answer(model, tokenizer, prompts, args.max_tokens, args.batch_size)
    seconds = time.perf_counter() - started
    tokens = sum(len(tokenizer.encode(text)) for text in answers)
    for prompt, answer in zip(prompts, answers, strict=True):
        print(f"{stage.name}: {one_line(prompt)} -> {one_line(answer)}")
    speed = tokens / seconds
    print(f"{stage.name}: {tokens} tokens in {seconds:.2f} s, {speed:.0f} tokens/s, {len(prompts)} prompts")
    return {"answers": answers, "tokens": tokens, "tokens_per_second": round(speed, 1)}


def main(argv=None):
    args = parse_args(argv)
    named = stages.stages_of(args)
    print(f"{args.model}: {quantization(model_folder(args.model))}")
    started = time.monotonic()
    model, tokenizer = stages.load_model(args)
    load_seconds = time.monotonic() - started
    prompts = args.prompt or list(PROMPTS)
    results = {stage.name: measure(args, model, tokenizer, stage, prompts) for stage in named}
    from lab.costs import peak_memory

    process, device = peak_memory()
    print(f"peak memory: {process / GIGABYTE:.2f} GB process, {device / GIGABYTE:.2f} GB MLX arrays")
    if args.output:
        figures = {"load_seconds": round(load_seconds, 2), "process_bytes": process, "device_bytes": device}
        results_in = {"prompts": prompts, **figures, "stages": results}
        write_summary(args.output, args, stages.model_files(args, named), results_in)
    if not any(text.strip() for result in results.values() for text in result["answers"]):
        raise CheckFailed(f"{args.model}: every answer is empty; convert the model again")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
