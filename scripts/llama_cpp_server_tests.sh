#!/bin/sh
# Runs the tests of llama.cpp's server against this server, with the demo model in both formats, and
# writes docs/llama-cpp-tests.md. The tests come with the sources of the pinned llama-cpp-python.
#
#   scripts/llama_cpp_server_tests.sh [--only TESTFILE]...     --only test_tokenize: that one anew
#
# Needs `make install-dev`. PYTHON names the Python of that environment; what the tests need is
# installed into an environment of their own under build/.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
VERSION=$(sed -n 's/^ *"llama-cpp-python==\([^"]*\)".*/\1/p' "$ROOT/pyproject.toml")
[ -n "$VERSION" ] || { echo "no pinned llama-cpp-python in pyproject.toml" >&2; exit 1; }
FOLDER=$ROOT/build/llama-server
SOURCES=$FOLDER/llama_cpp_python-$VERSION
ENVIRONMENT=$ROOT/build/llama-server-tests

if [ ! -f "$SOURCES/.complete" ]; then
	mkdir -p "$FOLDER"
	"$PYTHON" -m pip download -q --no-deps --no-binary llama-cpp-python -d "$FOLDER" \
		"llama-cpp-python==$VERSION" >&2
	tar -xzf "$FOLDER/llama_cpp_python-$VERSION.tar.gz" -C "$FOLDER"
	touch "$SOURCES/.complete"
fi
if [ ! -f "$ENVIRONMENT/.installed" ]; then
	"$PYTHON" -m venv "$ENVIRONMENT"
	"$ENVIRONMENT/bin/python" -m pip install -q pytest requests openai wget prometheus-client \
		numpy aiohttp filelock >&2
	touch "$ENVIRONMENT/.installed"
fi

cd "$ROOT"
exec "$PYTHON" -m scripts.llama_cpp_tests "$ENVIRONMENT/bin/python" \
	"$SOURCES/vendor/llama.cpp/tools/server/tests" "$@"
