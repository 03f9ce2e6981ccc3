#!/bin/sh
# Builds llama-server from the llama.cpp sources that the pinned llama-cpp-python carries, so that
# both sides of a comparison run the same kernels. Prints the binary's path.
#
#   scripts/build_llama_server.sh [FOLDER]     default: build/llama-server in the repository
#
# Needs cmake and a C++ compiler; PYTHON names the Python whose pip fetches the sources. JOBS is the
# number of compilers at once. Run again, it goes on where it was.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
FOLDER=${1:-$ROOT/build/llama-server}
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
VERSION=$(sed -n 's/^ *"llama-cpp-python==\([^"]*\)".*/\1/p' "$ROOT/pyproject.toml")
[ -n "$VERSION" ] || { echo "no pinned llama-cpp-python in pyproject.toml" >&2; exit 1; }

mkdir -p "$FOLDER"
FOLDER=$(CDPATH='' cd -- "$FOLDER" && pwd)
SOURCES=$FOLDER/llama_cpp_python-$VERSION
if [ ! -f "$SOURCES/.complete" ]; then
	# An installed package has no sources.
	"$PYTHON" -m pip download -q --no-deps --no-binary llama-cpp-python -d "$FOLDER" \
		"llama-cpp-python==$VERSION" >&2
	tar -xzf "$FOLDER/llama_cpp_python-$VERSION.tar.gz" -C "$FOLDER"
	touch "$SOURCES/.complete"
fi

# No web pages (they would be fetched), no TLS, no tests: only the server, with the kernels built
# for this machine's processor as `make serve` builds them (GGML_NATIVE is on by itself).
cmake -S "$SOURCES/vendor/llama.cpp" -B "$FOLDER/build" -DCMAKE_BUILD_TYPE=Release \
	-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
	-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF >&2
nice -n 10 cmake --build "$FOLDER/build" --target llama-server -j "$JOBS" >&2
echo "$FOLDER/build/bin/llama-server"
