#!/bin/sh
# Print the path of a Chromium, for the tests that look at a page. `make test` calls it with
# --install, which gets Debian's package where there is none, as root; without root or apt, the
# script says what to do, and those tests are skipped.
#
#   CHROMIUM=/path/to/chrome   this one, and no other
#
# Exit code: 0 with a path on standard output; 1 with the reason on standard error.
set -eu

say() { printf '%s\n' "$*" >&2; }

find_browser() {
    for name in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
        if "$name" --version >/dev/null 2>&1; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

[ -z "${1:-}" ] || [ "$1" = --install ] || { say "usage: scripts/browser.sh [--install]"; exit 2; }
find_browser && exit 0
if [ -n "${CHROMIUM:-}" ]; then
    say "CHROMIUM=$CHROMIUM is no browser that runs."
    exit 1
fi
if [ "${1:-}" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Installing Chromium from the system's packages, for the tests that look at a page."
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends chromium; } >&2 || say "apt-get failed; its message is above."
    find_browser && exit 0
fi
say "There is no Chromium. On Debian: sudo apt-get install chromium. Elsewhere: Chrome or Chromium"
say "on PATH, or CHROMIUM=/path/to/it."
exit 1
