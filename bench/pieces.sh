#!/bin/sh
# The whole benchmark in parts of a few minutes, for a shared machine: each part adds one round to the
# same result. Run again, it adds further rounds.
#
#   bench/pieces.sh [ROUNDS]        default: 5
#
# RUN: a prefix of each part's command, for example RUN="flock -x /tmp/cpu.lock". PYTHON: the Python to
# use. NAME: the name of the files in bench/results.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
NAME=${NAME:-bench}
cd "$ROOT"

piece() {
	# A failed part is recorded in the result; the others still run.
	${RUN:-} "$PYTHON" -m bench --append --name "$NAME" --rounds 1 "$@" || echo "failed: $*" >&2
}

round=0
# Seven parts: the first target changes with each part, and 7 is no multiple of 2 or 3 targets.
while [ "$round" -lt "${1:-5}" ]; do
	round=$((round + 1))
	piece --models half.gguf --scenarios distinct long --clients 1 --targets bare ours llama-server
	piece --models half.gguf --scenarios distinct --clients 4 16 --targets ours llama-server llama-server-split
	piece --models half.gguf --scenarios prefix --targets ours llama-server
	piece --models half.gguf --scenarios chat grammar --targets ours
	piece --models tiny --scenarios distinct chat
	piece --models small --scenarios distinct --targets ours mlx_lm.server
	piece --scenarios overhead jobs streams idle memory --targets ours
done
