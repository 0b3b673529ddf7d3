#!/usr/bin/env bash
# LoRA on google/gemma-2-9b-it with the seed's settings. Flags are passed on and win:
#   ./train_gemma_lora.sh --iters 200
# MODEL names another model, PYTHON another Python; RANKS=2 trains in two processes, HOSTFILE=hosts.json on
# several machines.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
flags=" $* "

# need FLAG FILE REMEDY: FILE must be there, unless FLAG names another.
need() {
  case "$flags" in *" $1 "* | *" $1="* | *" --help "* | *" -h "*) return ;; esac
  [ -e "$2" ] || { echo "error: $2: no such file; $3" >&2; exit 1; }
}
need --data data_mlx/train.jsonl "\`python prepare_mlx_data.py\` writes it"

launch=()
if [ -n "${HOSTFILE:-}" ]; then launch=("$python" -m lab.launch --hostfile "$HOSTFILE" --)
elif [ "${RANKS:-1}" != 1 ]; then launch=("$python" -m lab.launch --ranks "$RANKS" --)
fi

# bash 3.2 (macOS) takes an empty array for an unset variable
exec ${launch[@]+"${launch[@]}"} "$python" train_with_early_stopping.py -c configs/gemma9b/lora.yaml --train \
  --model "${MODEL:-google/gemma-2-9b-it}" \
  --data data_mlx --adapter-path adapters --resume "$@"
