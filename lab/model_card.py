"""The README.md that a converted model carries: where it comes from, what was done to it, how to run it."""

import json
import shlex

from lab import conversion_plan


def text(plan, args):
    """The model card of a Plan, Markdown with the front matter that the hub reads."""
    source = plan.source
    origin = source.repository or args.hf_path
    name = args.mlx_path.name
    front = {"library_name": "mlx", "pipeline_tag": "text-generation", "tags": ["mlx"], "language": ["ko", "en"]}
    front |= {"base_model": source.repository} if source.repository else {}
    front |= {"license": "other", "license_name": source.licence} if source.licence else {}
    lines = [
        "---",
        *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()),
        "---",
        "",
    ]
    left = ", ".join(f"{count} tensors of the {what}" for what, count in plan.model.left.items()) or "nothing"
    facts = {
        "Source": origin,
        "Revision": source.revision or "a local folder; summary.json holds the SHA-256 of its shards",
        "Licence": source.licence or "not stated by the source; see there before you pass this on",
        "Family": f"{plan.model.family}, as mlx-lm's `{plan.config['model_type']}`",
        "Left out": left,
        "Folded into weights": "; ".join(plan.model.folded) or "nothing",
        "End tokens": "; ".join([", ".join(map(str, plan.model.ends.ids)), *plan.model.ends.said]),
        "Numbers": numbers(plan, args),
        "Size": f"{plan.parameters:,} parameters, {plan.output_bytes:,} bytes",
    }
    lines += [
        f"# {name}",
        "",
        "The text model of a HyperCLOVA X SEED checkpoint, for mlx-lm, without remote code.",
        "",
    ]
    cells = {key: " ".join(str(value).replace("|", r"\|").split()) for key, value in facts.items()}
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in cells.items()), ""]
    lines += ["```", f'mlx_lm.generate --model {shlex.quote(name)} --prompt "안녕하세요"', "```", ""]
    lines += ["`summary.json` holds the SHA-256 of every file here and of all that was read of the source.", ""]
    return "\n".join(lines)


def numbers(plan, args):
    """How the weights are kept, in words: what no group divides is not quantized."""
    kinds = sorted({tensor.dtype for step in plan.steps for tensor in step.outputs if tensor.dtype != "U32"})
    names = {code: name for name, code in conversion_plan.DTYPES.items()}
    plain = " and ".join(names[kind] for kind in kinds)
    if not args.quantize:
        return plain
    quantized = sum(step.quantized for step in plan.steps)
    whole = sum(not step.quantized and len(step.recipe.shape) == 2 for step in plan.steps)
    said = f"{args.q_bits} bit, groups of {args.q_group_size}, scales in {plain}: {quantized} matrices"
    return said + (f"; {whole} whose rows are no multiple of the group stay as they are" if whole else "")
