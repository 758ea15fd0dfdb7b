#!/usr/bin/env bash
# scenedetect 0.7.2, scenedetect-headless 0.7.2, opencv-python 4.13.0.92, opencv-python-headless 4.13.0.92.
#
# Expected: scenedetect is content with the cv2 that opencv-python-headless brings, or pip refuses to have both; taking
#   one away leaves the other whole.
# Seen: scenedetect brings opencv-python next to it without a word, both own the same files of cv2, and whichever is
#   uninstalled takes cv2 from the one that pip still lists. scenedetect-headless brings nothing.
#
#   headless alone: opencv-python-headless==4.13.0.92; import cv2: cv2 4.13.0
#   Would install scenedetect-headless-0.7.2
#   scenedetect requires: opencv-python
#   files of cv2: opencv-python 95, opencv-python-headless 94, owned by both 94
#   pip check: no complaint; import cv2: cv2 4.13.0
#   opencv-python uninstalled: opencv-python-headless==4.13.0.92 left; import cv2: ModuleNotFoundError: No module named 'cv2'
#   or opencv-python-headless uninstalled: opencv-python==4.13.0.92 left; import cv2: AttributeError: module 'cv2' has no attribute '__version__'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
pip() { venv/bin/pip -qq --disable-pip-version-check "$@"; }
use() { (venv/bin/python -c 'import cv2; print("cv2", cv2.__version__)' 2>&1 || true) | tail -n 1; }
listed() { venv/bin/pip --disable-pip-version-check list --format freeze 2>/dev/null | grep opencv | xargs; }

pip install click==8.2.1 numpy==2.4.6 platformdirs==4.3.8 tqdm==4.67.1 opencv-python-headless==4.13.0.92
echo "headless alone: $(listed); import cv2: $(use)"
venv/bin/pip --disable-pip-version-check install --dry-run scenedetect-headless==0.7.2 2>/dev/null | grep '^Would install'
# opencv-python is named only to pin it: scenedetect asks for it by itself.
pip install scenedetect==0.7.2 opencv-python==4.13.0.92
venv/bin/python - <<'PY'
from importlib.metadata import files, requires

print("scenedetect requires:", *sorted(line for line in requires("scenedetect") if "opencv" in line))
names = ("opencv-python", "opencv-python-headless")
owned = [{str(file) for file in files(name) if file.parts[0] == "cv2"} for name in names]
both = len(owned[0] & owned[1])
print(f"files of cv2: {names[0]} {len(owned[0])}, {names[1]} {len(owned[1])}, owned by both {both}")
PY
pip check && echo "pip check: no complaint; import cv2: $(use)"

pip uninstall -y opencv-python
left=$(listed) first=$(use)
echo "opencv-python uninstalled: $left left; import cv2: $first"
pip install --force-reinstall --no-deps opencv-python==4.13.0.92 opencv-python-headless==4.13.0.92
pip uninstall -y opencv-python-headless
left=$(listed) second=$(use)
echo "or opencv-python-headless uninstalled: $left left; import cv2: $second"
[[ $first == *Error* && $second == *Error* ]]
