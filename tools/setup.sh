#!/bin/sh
# Build .venv from the locked requirements. `make` calls this when a lock changed; it may be run at any time.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*"; }
fail() { printf '%s\n' "setup: $*" >&2; exit 1; }

# Two targets started at once must not build the same folder.
if [ "${HOLDFAST_SETUP_LOCKED:-}" != 1 ] && command -v flock >/dev/null 2>&1; then
    mkdir -p .venv
    HOLDFAST_SETUP_LOCKED=1 exec flock .venv "$0" "$@"
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

choose_python() {
    found=
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        new_enough "$candidate" || continue
        found=$candidate
        if has_venv "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
    done
    if [ -n "$found" ]; then
        version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$found cannot make virtual environments; on Debian or Ubuntu: apt-get install python$version-venv"
    fi
    if command -v python3 >/dev/null 2>&1; then
        fail "Python 3.11 or newer is needed; python3 is $(python3 -c 'import platform; print(platform.python_version())'). Set PYTHON=/path/to/python to name another."
    fi
    fail "Python 3.11 or newer is needed, and no python3 was found. Set PYTHON=/path/to/python to name one."
}

# A virtual environment whose interpreter was removed or moved is made anew.
if ! new_enough .venv/bin/python; then
    python=$(choose_python)
    say "virtual environment in .venv ($("$python" --version))"
    rm -rf .venv/bin .venv/lib .venv/lib64 .venv/include .venv/pyvenv.cfg
    "$python" -m venv .venv
fi

pinned=$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements/uv.txt)
if [ "uv==$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$pinned" ]; then
    say "$pinned"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/uv.txt
fi

say "packages from requirements/dev.txt"
if ! .venv/bin/uv pip sync --compile-bytecode --python .venv/bin/python --require-hashes requirements/dev.txt; then
    # uv does not read pip's configuration; where only pip knows the way to a package index, pip installs.
    say "uv could not install; trying pip"
    .venv/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
fi
touch .venv/.ready
say "ready"
