#!/usr/bin/env bash
# What a newcomer does: start the server, load both demo models, get an answer from each, stop.
# Fails if one of these does. PORT chooses another port than 4000.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MGS_PORT="${PORT:-4000}"
url="http://127.0.0.1:$MGS_PORT"
log=$(mktemp)

make install
.venv/bin/mgs serve >"$log" 2>&1 &
server=$!
stop() {
  kill -TERM "$server" 2>/dev/null || true
  wait "$server" || true
}
trap 'stop; cat "$log"; echo "first_answer: failed" >&2' ERR

for _ in $(seq 120); do
  curl -fs "$url/health/ready" >/dev/null && break
  kill -0 "$server"
  sleep 0.5
done
for model in demo demo.gguf; do
  .venv/bin/mgs load "$model" --id "$model"
  answer=$(curl -fsS "$url/v1/chat/completions" -H "Content-Type: application/json" \
    -d "{\"model\": \"$model\", \"temperature\": 0,
         \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}")
  echo "$model: $answer"
  [[ $answer == *"Hello!"* ]]
done
trap - ERR
stop
rm -f "$log"
echo "first_answer: both engines answered"
