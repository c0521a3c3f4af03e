# Sourced by quickstart and test: makes .venv with jaxgen in it, or reuses it.
# Usage: make_environment [EXTRA]; leaves the interpreter in $PYTHON.

fail() {
  printf '\nerror: %s\n' "$1" >&2
  exit "${2:-3}"
}

find_python() {
  local candidate
  for candidate in "${JAXGEN_PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed and was not found. Install it, or name it: JAXGEN_PYTHON=/path/to/python3.12 $0"
}

make_environment() {
  local extra="${1:-}" root stamp want base log free
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  cd "$root" || exit 3
  PYTHON="$root/.venv/bin/python"
  stamp="$root/.venv/jaxgen-installed${extra:+-$extra}"
  want="$(cksum <pyproject.toml) $root"
  if [ -x "$PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    return
  fi
  if [ ! -x "$PYTHON" ] || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    base=$(find_python) || exit $?
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
    if [ -n "$free" ] && [ "$free" -lt 2500 ]; then
      fail "the environment takes about 2 GB and only $free MB are free here; make room and run $0 again."
    fi
    echo "making .venv with $("$base" --version) ..."
    rm -rf .venv
    "$base" -m venv .venv || {
      rm -rf .venv
      fail "could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
    }
  fi
  echo "installing jaxgen and what it needs (a minute or two) ..."
  log="$root/.venv/install.log"
  if ! "$PYTHON" -m pip install --disable-pip-version-check --quiet \
    --editable ".${extra:+[$extra]}" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    if grep -qi 'no space left' "$log"; then
      fail "the disk is full; make room (about 2 GB) and run $0 again: it goes on from here."
    elif grep -qiE 'connection|resolve|timed out|network|proxy|ssl|no matching distribution' "$log"; then
      fail "packages could not be fetched. Is the network (or the proxy, PIP_INDEX_URL) up? Run $0 again then: it goes on from here. The whole output is in $log"
    fi
    fail "the installation failed; the whole output is in $log"
  fi
  printf '%s' "$want" >"$stamp"
}
