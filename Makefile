# `make demo` and `make test` are all that a fresh machine with Python 3.11 needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_WAIT_POLICY = passive  # threads that wait must not spin while others compute
export HF_HUB_OFFLINE = 1
export PYTHONWARNINGS = ignore::FutureWarning,ignore::DeprecationWarning

UNSEEN = cherries-fluent3d hibiscus-twemoji headstone-twemoji nest-with-eggs-fluent3d

.PHONY: demo test lint clean setup

demo: setup
	dvc repro
	taming generate $(foreach o,$(UNSEEN),--object data/raw/$(o)/0.jpg) --out out/demo \
	  --prompt "a photo of a <object> on the beach" --prompt "a photo of a <object> in outer space" \
	  --prompt "a pixel art of a <object> in a city at night"
	taming inspect data/objects.parquet --out data/sheets/objects.png
	taming inspect data/captions.parquet --out data/sheets/captions.png
	taming inspect data/rows --out data/sheets/rows.png
	@echo
	@echo "Scores and pictures   data/evaluation/report.html"
	@echo "Contact sheets        data/sheets/objects.png, data/sheets/captions.png, data/sheets/rows.png"
	@echo "Unseen objects        out/demo/sheet.png"

test: setup
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=5

lint: setup
	ruff check .
	ruff format --check .
	pyright

clean:
	rm -rf .venv runs out dist .pytest_cache .ruff_cache data/*.parquet data/rows data/encoder \
	  data/evaluation data/sheets

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'taming needs Python 3.11 or newer')"
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@# ultralytics brings an OpenCV that needs the system's libGL; where that is missing, the headless one serves.
	.venv/bin/python -c "import cv2" 2>/dev/null || .venv/bin/pip install --quiet --force-reinstall --no-deps \
	  "opencv-python-headless==$$(.venv/bin/pip show opencv-python | sed -n 's/^Version: //p')"
	touch $@
