#!/bin/sh
# Makes .venv exactly as requirements.lock says. `make` calls it when the lock, the project or this file changed.
set -eu
PYTHON=${PYTHON:-python3}
ROOM_GIB=8
LOG=.venv/setup.log
UV=.venv/setup/bin/uv

stop() {
    echo "rillfold: $*" >&2
    exit 1
}

# What a tool said becomes one line: what is wrong, and what to do.
explain() {
    if grep -qi "no space left" "$LOG"; then
        stop "the disk is full: the packages need $ROOM_GIB GiB at $(pwd) and in the package cache."
    elif grep -qiE "resolve|connect|network|timed? ?out|unreachable|retries" "$LOG"; then
        stop "the package index cannot be reached: connect this machine to the network once (details: $LOG)."
    fi
    stop "$1 failed (details: $LOG): $(grep -iE 'error' "$LOG" | tail -n 1)"
}

command -v "$PYTHON" >/dev/null ||
    stop "$PYTHON is not here: install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=..."
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    stop "$("$PYTHON" --version 2>&1) is not one of 3.11, 3.12, 3.13: name another by: make PYTHON=python3.11"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "$PYTHON has no venv module: apt install python3-venv (or $(basename "$PYTHON")-venv), then try again."

if [ ! -x .venv/bin/python ]; then
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge "$ROOM_GIB" ] || stop "only $free GiB are free at $(pwd), and the packages need $ROOM_GIB: make room."
    echo "setting up $(pwd)/.venv, once: 2.5 GB of packages, most of it torch's" >&2
    "$PYTHON" -m venv .venv || stop "$PYTHON could not make $(pwd)/.venv: remove that folder and try again."
fi

# uv has a folder of its own: the sync below removes whatever the lock does not name.
if ! $UV --version 2>/dev/null | grep -q "^uv $(sed -n 's/^uv==\([0-9.]*\).*/\1/p' setup/uv.txt)"; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --require-hashes --upgrade \
        --target .venv/setup -r setup/uv.txt >"$LOG" 2>&1 || explain "the installation of uv"
fi

if [ -t 2 ]; then
    $UV pip sync --python .venv/bin/python --require-hashes requirements.lock ||
        stop "the packages could not be installed (see above): connect this machine to the network, then try again."
else
    $UV pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock >"$LOG" 2>&1 ||
        explain "the installation of the packages"
fi
# Everything the build needs is in the lock: nothing is fetched from here on.
$UV pip install --quiet --offline --python .venv/bin/python --no-deps --no-build-isolation -e . >"$LOG" 2>&1 ||
    explain "the installation of the project"
