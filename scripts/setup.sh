#!/bin/sh
# Create the virtual environment and install the project into it, with exactly the versions in
# constraints.txt. `make setup` calls this; it can also be called by hand from any folder.
#
#   VENV=.venv        where the environment goes
#   PYTHON=python3.12 the interpreter to build it with (default: the first of python3, python3.12,
#                     python3.11, python3.10 on PATH that MindSpore has wheels for)
#
# A finished installation leaves VENV/.setup-complete with a fingerprint of what it was made from.
# While that matches, nothing is done. pip's own configuration (mirrors, proxies, certificates) is
# left alone.
set -eu

cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
complete=$venv/.setup-complete
started=$venv/.setup-started

say() { printf '%s\n' "$*" >&2; }

# The path is part of it: scripts in an environment name their interpreter by absolute path, so a
# copied or moved folder needs a new one.
fingerprint() {
    { pwd; "$venv/bin/python" -V; cat setup.cfg pyproject.toml constraints.txt scripts/setup.sh; } 2>&1 | cksum
}

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        if supported "$PYTHON"; then
            echo "$PYTHON"
            return
        fi
        say "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12 that runs."
    else
        for candidate in python3 python3.12 python3.11 python3.10; do
            if supported "$candidate"; then
                echo "$candidate"
                return
            fi
        done
        say "No Python 3.10, 3.11 or 3.12 found on PATH."
    fi
    say "MindSpore publishes packages for these versions only. Install one of them (on Debian or"
    say "Ubuntu: apt-get install python3), or name it: make setup PYTHON=/path/to/python3.11"
    exit 1
}

# pip can be put into a new environment by Python itself or, where Debian has left that part out,
# by a pip that is already there.
can_bootstrap() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
can_borrow_pip() {
    "$python" -c 'import venv' 2>/dev/null && "$python" -m pip --python "$python" --version >/dev/null 2>&1
}

# What a bare Debian or Ubuntu lacks, as the names of its packages: the part of venv that brings
# pip, and the OpenMP library that MindSpore is linked with.
missing_packages() {
    can_bootstrap || can_borrow_pip ||
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || echo libgomp1
}

install_missing_packages() {
    missing=$(missing_packages | xargs)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing from the system's packages: $missing"
        # shellcheck disable=SC2086  # the list is meant to be split
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends $missing; } >&2 || say "apt-get failed; its message is above."
        missing=$(missing_packages | xargs)
        [ -n "$missing" ] || return 0
    fi
    say "This machine lacks what $python needs to run MindSpore in an environment of its own. On"
    say "Debian and Ubuntu these are the packages to install, then run make setup again:"
    say "    sudo apt-get install $missing"
    say "Elsewhere: Python's ensurepip module for a python3.x-venv, GCC's libgomp.so.1 for libgomp1."
    say "Without root, use a Python that brings both (conda): make setup PYTHON=/path/to/python3"
    exit 1
}

make_venv() {
    if can_bootstrap; then
        "$python" -m venv "$venv"
    else
        "$python" -m venv --without-pip "$venv"
        "$python" -m pip --python "$venv/bin/python" install --quiet pip
    fi
}

# Never removes a folder that is not a virtual environment, whatever VENV says.
remove_venv() {
    if [ ! -e "$venv/pyvenv.cfg" ] && [ ! -e "$started" ] && [ -n "$(ls -A "$venv")" ]; then
        say "$venv exists and is not a virtual environment. Remove it, or choose another folder: make setup VENV=FOLDER"
        exit 1
    fi
    rm -rf "$venv"
}

if [ -n "${PYTHON:-}" ] && [ -e "$venv/pyvenv.cfg" ]; then
    python=$(find_python)
    if [ "$("$python" -V)" != "$("$venv/bin/python" -V 2>&1)" ]; then
        say "$venv was not made with $("$python" -V), which PYTHON asks for; replacing it."
        remove_venv
    fi
fi

if [ -e "$complete" ] && [ "$(cat "$complete")" = "$(fingerprint)" ]; then
    exit 0
fi

# Packages that an interrupted installation was writing may be there in part and yet look
# installed, so it starts afresh. Downloads are in pip's cache.
if [ -e "$started" ]; then
    say "An earlier set-up was interrupted; starting afresh in $venv."
    remove_venv
elif [ -e "$venv" ] && ! { supported "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    say "$venv holds no usable Python 3.10 to 3.12; replacing it."
    remove_venv
fi
if [ -e "$complete" ] && [ "$(head -n 1 "$venv/.setup-path" 2>/dev/null)" != "$(pwd)" ]; then
    say "$venv was made in another folder; replacing it."
    remove_venv
fi
if [ ! -e "$venv" ]; then
    python=$(find_python)
    install_missing_packages
    make_venv
else
    python=$venv/bin/python
    install_missing_packages
fi

rm -f "$complete"
: >"$started"
say "Installing into $venv ($("$venv/bin/python" -V)). MindSpore is a large download; the first time takes some minutes."
pip() {
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --progress-bar off \
        --constraint constraints.txt "$@"; then
        # pip rolls back what it could not finish, so the next call may go on from here.
        rm -f "$started"
        say "The installation failed; pip's message above says why. Run make setup again once that is mended."
        exit 1
    fi
}
pip --editable '.[dev]'
# See [options.extras_require] in setup.cfg: without libGL, the headless build over the other.
if ! "$venv/bin/python" -c 'import cv2' 2>/dev/null; then
    pip --no-deps --force-reinstall opencv-python-headless
fi
pwd >"$venv/.setup-path"
fingerprint >"$complete"
rm -f "$started"
say "Ready: $venv/bin/launcher"
