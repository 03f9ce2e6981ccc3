#!/bin/sh
# llama.cpp is compiled at the first set-up. Without a C and a C++ compiler: one sentence with the
# command that installs them.
set -u

if [ "$(uname -s)" = Darwin ]; then
  # /usr/bin/cc is always there; without the tools it opens a window and fails.
  if ! xcode-select -p >/dev/null 2>&1; then
    echo "There is no C compiler, which llama.cpp needs: xcode-select --install" >&2
    exit 1
  fi
  exit
fi
for compiler in "${CC:-cc}" "${CXX:-c++}"; do
  if ! command -v "${compiler%% *}" >/dev/null; then
    echo "There is no C and C++ compiler ($compiler), which llama.cpp needs: sudo apt install build-essential (Fedora: sudo dnf install gcc-c++)" >&2
    exit 1
  fi
done
