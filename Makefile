# Everything a user does here is one of these targets; `make` alone explains them.

PROFILE ?= sample
# A port that is named is taken or refused; without a name the servers look for the next free one.
PORT ?=
BUNDLE ?= ebnerd_demo

# An environment of one's own is used as it is: make run-all PYTHON=/path/to/python
ifdef PYTHON
PY := $(PYTHON)
READY :=
else
PY := .venv/bin/python
READY := .venv/installed
endif

# Jupyter refuses root, which is the only user there is in many containers.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# What stands on the command line is an option of a verb: other programs have variables of such names.
option = $(if $(filter command,$(origin $(1))),--$(2) "$$$(1)")

# Make before 4.3, as on macOS, takes a number sign within a function for a comment.
HASH := \#

# A target takes the variables that its line of help names; another on the command line would be without effect.
GIVEN := $(filter-out PYTHON SHELL MAKEFLAGS,$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name))))
ifneq ($(GIVEN),)
TAKEN := $(sort $(foreach target,$(or $(MAKECMDGOALS),help),$(shell \
  sed -n 's|^$(target):.*$(HASH)$(HASH) ||p' $(firstword $(MAKEFILE_LIST)) | grep -oE '[A-Z_]{2,}')))
WRONG := $(firstword $(filter-out $(TAKEN),$(GIVEN)))
ifneq ($(WRONG),)
NEAREST := $(shell $(or $(PYTHON),python3) -c "import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))" \
  '$(WRONG)' $(TAKEN))
$(error make $(or $(MAKECMDGOALS),help) takes no variable $(WRONG)$(if $(NEAREST),: did you mean $(NEAREST)?,; it takes $(or $(TAKEN),none)))
endif
endif

# Set before any process starts, for the same bytes on any number of threads.
export PYTHONHASHSEED := 0
export MKL_CBWR := AVX2,STRICT
export CUBLAS_WORKSPACE_CONFIG := :4096:8
export PYTHONPATH := $(CURDIR)

# The stamp that the generator writes last, where PROFILE reads a generated bundle.
FIRST := $(wildcard params/$(PROFILE)/01_preprocess.yaml)
READS := $(if $(FIRST),$(or $(shell sed -n 's|^bundle: *"*\([^" ]*\).*|\1|p' $(FIRST)),data/sample))
STAMP := $(addsuffix /generated.json,$(filter data/smoke data/sample,$(READS)))
GENERATOR := $(wildcard ebnerd_lib/sample/*.py) ebnerd_lib/data/schema.py

# What torch's CUDA build brings by itself; in the lock it would be downloaded where a CPU build is at hand.
CUDA := cuda-bindings cuda-pathfinder cuda-toolkit triton nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

# JupyterLab would ask for leave to fetch news, and look for a newer version of itself.
ANNOUNCEMENTS := @jupyterlab/apputils-extension:announcements

# What Jupyter and papermill write into a notebook that they run, beside outputs and counts.
STRIPPED := metadata.papermill cell.metadata.papermill metadata.language_info.codemirror_mode \
	metadata.language_info.file_extension metadata.language_info.mimetype metadata.language_info.nbconvert_exporter \
	metadata.language_info.pygments_lexer metadata.language_info.version

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run-all keep compare tune reports lab tensorboard data doctor test test-slow lint bench audit setup-git \
	clean lock

# A line of `##@` names a group of targets for `make help`, a group without targets is not shown.
##@ Run

run-all: $(READY) $(STAMP) ## run what is stale in PROFILE and render it; JOBS=1 ONLY=03_train_mlp FROM=… FORCE=1; NEW=03_train_mlp.wide SET="hidden=[256]"
	@$(PY) -m ebnerd_lib run --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS)) $(call option,NEW,new) \
	  $(call option,SET,set) $(call option,ONLY,only) $(call option,FROM,from) $(if $(call option,FORCE),$(if $(filter-out 0 no false,$(FORCE)),--force))

keep: $(READY) ## write the parameters of RUN=smoke/03_train_mlp.lab1 to a variant NEW=03_train_mlp.wide
	@$(PY) -m ebnerd_lib keep $(call option,RUN,run) $(call option,NEW,new)

compare: $(READY) ## put RUNS="sample/03_train_mlp sample/03_train_mlp.lab1" side by side on one page, SEEDS=5
	@$(PY) -m ebnerd_lib compare $(call option,RUNS,runs) $(call option,SEEDS,seeds)

tune: $(READY) $(STAMP) ## search over the parameters of STAGE=03_train_mlp in PROFILE, TRIALS=20
	@$(PY) -m ebnerd_lib tune --profile $(PROFILE) $(call option,STAGE,stage) $(call option,TRIALS,trials)

reports: $(READY) ## render the pages of all profiles again, without running anything
	@$(PY) -m ebnerd_lib reports

##@ Explore

# With all cells of a notebook in the page, a cell that failed can be brought into view.
lab: $(READY) $(STAMP) ## open JupyterLab on the notebooks of PROFILE, on 127.0.0.1 with a token, PORT=8888
	@$(PY) -m ebnerd_lib lab --profile $(PROFILE)
	@JUPYTER_CONFIG_PATH="$(CURDIR)/templates/lab$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	  $(PY) -m jupyterlab --ip=127.0.0.1 --port=$(or $(PORT),8888) $(if $(PORT),--ServerApp.port_retries=0) $(AS_ROOT) \
	  --ServerApp.kernel_spec_manager_class=ebnerd_lib.pipeline.kernel.LabKernels \
	  --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/outputs/$(PROFILE)/lab

tensorboard: $(READY) ## show the training logs of PROFILE on 127.0.0.1, PORT=6006
	@$(PY) -m tensorboard.main --host 127.0.0.1 $(if $(PORT),--port $(PORT)) --logdir outputs/$(PROFILE)/logs

##@ Data

data: $(READY) ## fetch BUNDLE=ebnerd_demo, ebnerd_small, ebnerd_large, ebnerd_testset or ebnerd_vectors; ACCEPT_LICENSE=yes EBNERD_URL=…
	@$(PY) -m ebnerd_lib download --bundle $(BUNDLE)

##@ Check

doctor: ## see what is there, what is wrong for PROFILE, and what to do about it
	@if command -v $(PY) >/dev/null 2>&1; then exec $(PY) -m ebnerd_lib doctor --profile $(PROFILE); \
	  else exec python3 -m ebnerd_lib doctor --profile $(PROFILE); fi

test: $(READY) ## run the quick tests and the examples in docstrings: under 4 minutes
	@$(PY) -m pytest -n 2 --dist loadfile

test-slow: $(READY) ## run what starts whole runs, servers, browsers, torchrun, kills and full disks: a quarter of an hour
	@$(PY) -m pytest -m slow -n 2 --dist loadfile

lint: $(READY) ## check style, types, import directions and that notebooks hold no outputs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -c "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
	@$(PY) -m nbstripout --verify --keep-id --extra-keys "$(STRIPPED)" notebooks/*.ipynb

bench: $(READY) ## install rivals and measure speed and memory against them: 20 minutes, ROWS=slates,… QUICK=1 LARGE=1
	-@$(PY) -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[bench]'
	@$(PY) -m benchmarks $(if $(ROWS),--rows $(ROWS)) $(if $(QUICK),--quick) $(if $(LARGE),--large)

audit: $(READY) ## list the licences of the installed packages
	@$(PY) -m pip install --quiet pip-licenses
	@$(PY) -m piplicenses --with-urls

##@ Maintain

setup-git: $(READY) ## keep what running notebooks writes into them out of git, in this clone
	@$(PY) -m nbstripout --version > /dev/null
	@python=$$(command -v $(PY)) && strip="\"$$python\" -m nbstripout --keep-id --extra-keys '$(STRIPPED)'" && \
	  git config --replace-all filter.nbstripout.clean "$$strip" && \
	  git config --replace-all filter.nbstripout.smudge cat && \
	  git config --replace-all filter.nbstripout.required false && \
	  git config --replace-all diff.ipynb.textconv "$$strip --textconv" && \
	  echo "notebooks are added to git without outputs, by $$python"

CLEAN := $(filter-out file,$(origin PROFILE))$(call option,STAGE,stage)

clean: $(if $(CLEAN),$(READY)) ## remove all outputs and generated data, or outputs of PROFILE or of a STAGE alone; never touches data/ebnerd_*
ifeq ($(CLEAN),)
	@[ ! -d outputs ] || find outputs/ -mindepth 1 -maxdepth 1 ! -name README.md ! -name '.*' -exec rm -rf {} +
	@rm -rf data/smoke data/sample data/bench
else
	@$(PY) -m ebnerd_lib clean --profile $(PROFILE) $(call option,STAGE,stage)
endif

lock: $(READY) ## renew requirements.lock from pyproject.toml
	@$(PY) -m pip install --quiet uv
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-annotate \
	  $(addprefix --no-emit-package ,$(CUDA)) --output-file requirements.lock.new pyproject.toml
	@(grep '^#' requirements.lock; cat requirements.lock.new) > requirements.lock.tmp
	@mv requirements.lock.tmp requirements.lock && rm requirements.lock.new

help: ## explain the targets
	@echo "make TARGET [PROFILE=$(PROFILE)] [PYTHON=/path/to/python]"
	@awk -F ':.*## ' '/^##@ / {group = substr($$0, 5)} /^[a-z-]+:.*## / \
	  {if (group != "") print "\n" group; group = ""; printf "  %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Profiles: $(filter-out %.yaml,$(notdir $(wildcard params/*))). Data of ebnerd_* goes to data/<profile>/, see README.md."

.venv/installed: requirements.lock
	@python3 -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" || { \
	  echo "python3 must be 3.11, 3.12 or 3.13; it is $$(python3 --version 2>&1). Install one, or name an environment:" \
	       "make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@echo "making .venv: a few minutes, once"
	@python3 -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@.venv/bin/python -m jupyter labextension disable --level=sys_prefix $(ANNOUNCEMENTS)
	@touch $@

data/smoke/generated.json: $(GENERATOR) | $(READY)
	@echo "generating data/smoke"
	@$(PY) -m ebnerd_lib sample --out data/smoke --size smoke

data/sample/generated.json: $(GENERATOR) | $(READY)
	@echo "generating data/sample"
	@$(PY) -m ebnerd_lib sample --out data/sample --size demo
