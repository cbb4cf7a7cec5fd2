# `make demo` and `make test` are all that a fresh machine with Python 3.11 needs, in either order.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export HF_HUB_OFFLINE = 1

UNSEEN = cherries-fluent3d hibiscus-twemoji headstone-twemoji nest-with-eggs-fluent3d
INSTALL = PIP_CONSTRAINT=requirements.lock PIP_BUILD_CONSTRAINT=requirements.lock \
  .venv/bin/pip install -qq --disable-pip-version-check
BUILD = $(shell $(PYTHON) -c "import shlex, tomllib; \
  print(shlex.join(tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires']))")
PYTEST = OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all test-faults lint docs lock setup clean

demo: .venv/demo
	@echo "Step 1 of 4, half a minute: find objects in the photos, caption them, build the training set"
	@dvc repro --quiet materialize
	@echo "Step 2 of 4, a minute and a half: train an encoder, beginning with mini's"
	@dvc repro --quiet train
	@echo "Step 3 of 4, two to three minutes: draw held-out objects in new scenes and styles, and score them"
	@dvc repro --quiet
	@echo "Step 4 of 4, half a minute: draw four objects that no model has seen, and contact sheets"
	@taming generate $(foreach o,$(UNSEEN),--object data/raw/$(o)/0.jpg) --out out/demo \
	  --prompt "a photo of a <object> on the beach" --prompt "a photo of a <object> in outer space" \
	  --prompt "a pixel art of a <object> in a city at night"
	@taming inspect data/objects.parquet --out data/sheets/objects.png
	@taming inspect data/captions.parquet --out data/sheets/captions.png
	@taming inspect data/rows --out data/sheets/rows.png
	@echo
	@echo "Scores and pictures   data/evaluation/report.html"
	@echo "Contact sheets        data/sheets/objects.png, data/sheets/captions.png, data/sheets/rows.png"
	@echo "Unseen objects        out/demo/sheet.png"

test: .venv/test
	$(PYTEST) -m "not slow and not exhaustive" --durations=5

test-all: .venv/test
	$(PYTEST) -m slow --durations=5

# Injects every fault, and writes the table of docs/explanation/faults.md.
test-faults: .venv/test
	OMP_NUM_THREADS=1 python tests/faults/table.py

lint: .venv/test
	ruff check .
	ruff format --check .
	pyright

# The documentation site, without a network: open build/docs/index.html.
docs: .venv/test
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

setup: .venv/test

# Renews requirements.lock within the ranges of pyproject.toml: resolved anew, nothing is installed.
lock: .venv/bin/pip
	.venv/bin/pip install -qq --disable-pip-version-check --dry-run --ignore-installed --report - \
	  --editable ".[dev]" $(BUILD) | .venv/bin/python .ci/lock.py > requirements.lock.part
	mv requirements.lock.part requirements.lock

clean:
	rm -rf .venv runs out dist build .pytest_cache .ruff_cache data/objects.parquet data/captions.parquet \
	  data/rows-dropped.parquet data/rows data/encoder data/evaluation data/sheets

.venv/bin/pip:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'taming needs Python 3.11 or newer')"
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml requirements.lock | .venv/bin/pip
	$(INSTALL) --editable ".[dvc]"
	@# ultralytics brings an OpenCV that needs the system's libGL; where that is missing, the headless one serves.
	.venv/bin/python -c "import cv2" 2>/dev/null || $(INSTALL) --force-reinstall --no-deps \
	  opencv-python-headless==$$(sed -n 's/^opencv-python==//p' requirements.lock)
	touch $@

.venv/test: .venv/demo
	$(INSTALL) --editable ".[dev]"
	touch $@
