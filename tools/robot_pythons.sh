#!/usr/bin/env bash
# Runs the robot-side tests on each Python that a robot may have: JetPack 6 has 3.10, JetPack 7 has
# 3.12. Skips a Python that is not installed, unless an argument names it.
#     tools/robot_pythons.sh [VERSION ...]
set -euo pipefail
cd "$(dirname "$0")/.."

# `python3.10` may be a pyenv shim that only says how to switch, so ask it to run something.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if "$candidate" -c '' 2>/dev/null; then echo "$candidate"; return; fi
    done
}

versions=("$@")
[ $# -gt 0 ] || versions=(3.10 3.11 3.12)
for version in "${versions[@]}"; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        missing="== Python $version: neither in PATH nor in pyenv"
        [ $# -eq 0 ] || { echo "$missing" >&2; exit 1; }
        echo "$missing: SKIPPED" >&2
        continue
    fi
    echo "== Python $version: $python"
    venv=.venv-py$version
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt \
        -e '.[cpu,vision]' dynamixel-sdk hypothesis onnx pytest pytest-timeout
    "$venv/bin/pytest" -q tests/v2a tests/hw_drivers tests/runtime tests/examples \
        tests/test_rooms.py
done
