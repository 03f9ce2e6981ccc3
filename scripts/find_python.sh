#!/bin/sh
# Prints the Python to make .venv with. Without one that can serve: one sentence with the remedy.
# PYTHON names one to use; only that is looked at then. Where there is none, uv brings one.
set -u
PATH="$PATH:/usr/sbin" # sysctl

refuse() {
  echo "$1" >&2
  exit 1
}

is_mac() {
  [ "$(uname -s)" = Darwin ]
}

# 0: can serve. 2: wrong version. 3: for another processor (Rosetta, Intel Homebrew, conda).
try() {
  "$1" -c 'import platform, sys
if not (3, 11) <= sys.version_info < (3, 15): sys.exit(2)
if sys.platform == "darwin" and platform.machine() != "arm64": sys.exit(3)' 2>/dev/null
}

ask_uv() {
  command -v uv >/dev/null || return 1
  wanted='>=3.11,<3.15' brought=3.11
  if is_mac; then wanted=cpython-3.11-macos-aarch64-none brought=$wanted; fi
  uv python find --system "$wanted" 2>/dev/null && return
  echo "No Python 3.11 to 3.14 was found here: uv brings one." >&2
  uv python install "$brought" >&2 && uv python find --system "$brought"
}

if is_mac; then
  if [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" != 1 ]; then # 1 under Rosetta too
    refuse "This Mac has no Apple silicon, which MLX needs."
  fi
  version=$(sw_vers -productVersion)
  if [ "${version%%.*}" -lt 14 ]; then
    refuse "macOS $version is too old for MLX: update to macOS 14 or newer."
  fi
fi

if [ -n "${PYTHON:-}" ]; then
  set -- "$PYTHON"
else
  set -- python3.11 python3.12 python3.13 python3.14 python3
fi
intel=""
for name in "$@"; do
  python=$(command -v "$name") || continue
  try "$python"
  case $? in
  0) echo "$python" && exit ;;
  3) intel=$python ;;
  esac
done

if [ -z "${PYTHON:-}" ] && python=$(ask_uv) && try "$python"; then
  echo "$python"
  exit
fi
if [ -n "$intel" ]; then
  refuse "$intel is for Intel processors here (a terminal under Rosetta, an Intel Homebrew or conda), where MLX has no packages: leave Rosetta, or install a Python for Apple silicon (/opt/homebrew/bin/brew install python@3.11, or python.org), or name it: make PYTHON=/path/to/python3 serve"
fi
if [ -n "${PYTHON:-}" ]; then
  refuse "$PYTHON is no Python 3.11 to 3.14 that runs here: name another one, or none"
fi
refuse "Python 3.11 to 3.14 is needed and none was found: install one (or uv, which brings one), or name it: make PYTHON=/path/to/python3 serve"
