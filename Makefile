# The user's commands; README.md explains them. Every target creates .venv and installs what it needs by itself.
#
#   make reproduce-cifar-table PROFILE=smoke
#
# PROFILE=paper|short|smoke  LAUNCHER=auto|inline|local|slurm  SEEDS=5  ROWS=resnet20,resnet56  DATA=dir  OUT=runs
# DATASET=cifar10|imagenet (bag of tricks)  TRAIN_IMAGES=45000  PRECISION=fp32|bf16|fp16  DEVICE=cuda:1
# PACK=auto|8  SLOTS=2  YES=1  DRY_RUN=1
# SLURM_PROFILE=mycluster  DETACH=1  (to cancel its jobs: make cancel EXPERIMENT=cifar_table)

# Threads that wait for one another spin for a while, which on a busy machine makes training several times slower
# than it need be: 1,000 turns instead of GNU OpenMP's 30 billion cost an idle machine little. Results don't change.
export GOMP_SPINCOUNT ?= 1000

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

OUT_FLAG = $(if $(OUT),--out '$(OUT)')
FLAGS = $(if $(PROFILE),--profile '$(PROFILE)') $(if $(LAUNCHER),--launcher '$(LAUNCHER)') \
	$(if $(SEEDS),--seeds '$(SEEDS)') $(if $(ROWS),--rows '$(ROWS)') $(if $(DATA),--data '$(DATA)') $(OUT_FLAG) \
	$(if $(DATASET),--dataset '$(DATASET)') $(if $(TRAIN_IMAGES),--train-images '$(TRAIN_IMAGES)') \
	$(if $(PRECISION),--precision '$(PRECISION)') $(if $(DEVICE),--device '$(DEVICE)') \
	$(if $(PACK),--pack '$(PACK)') $(if $(DETACH),--detach) $(if $(SLOTS),--slots '$(SLOTS)') \
	$(if $(SLURM_PROFILE),--slurm-profile '$(SLURM_PROFILE)') $(if $(YES),--yes) $(if $(DRY_RUN),--dry-run)

.PHONY: reproduce-cifar-table reproduce-degradation reproduce-precision reproduce-bag-of-tricks
.PHONY: reproduce-bag-of-tricks-efficient reproduce-bag-of-tricks-tweaks reproduce-bag-of-tricks-refinements
.PHONY: reproduce-mnist-residual reproduce-protocol-details
.PHONY: report check status cancel list publish slurm-up slurm-down slurm-status help venv test bench reliability

help: ; @sed -n '/^$$/q;s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST)); sed -n 's/^\.PHONY:/targets:/p' $(firstword $(MAKEFILE_LIST))

reproduce-cifar-table: $(INSTALLED) ; @$(BIN)/python -m reproductions.cifar_table $(FLAGS)
reproduce-degradation: $(INSTALLED) ; @$(BIN)/python -m reproductions.degradation $(FLAGS)
reproduce-precision: $(INSTALLED) ; @$(BIN)/python -m reproductions.precision $(FLAGS)
reproduce-mnist-residual: $(INSTALLED) ; @$(BIN)/python -m reproductions.mnist_residual $(FLAGS)
reproduce-protocol-details: $(INSTALLED) ; @$(BIN)/python -m reproductions.protocol_details $(FLAGS)

reproduce-bag-of-tricks: $(INSTALLED)
	@$(BIN)/python -m reproductions.bag_of_tricks_efficient $(FLAGS)
	@$(BIN)/python -m reproductions.bag_of_tricks_tweaks $(FLAGS)
	@$(BIN)/python -m reproductions.bag_of_tricks_refinements $(FLAGS)

reproduce-bag-of-tricks-efficient: $(INSTALLED) ; @$(BIN)/python -m reproductions.bag_of_tricks_efficient $(FLAGS)
reproduce-bag-of-tricks-tweaks: $(INSTALLED) ; @$(BIN)/python -m reproductions.bag_of_tricks_tweaks $(FLAGS)
reproduce-bag-of-tricks-refinements: $(INSTALLED) ; @$(BIN)/python -m reproductions.bag_of_tricks_refinements $(FLAGS)

report check list: $(INSTALLED) ; @$(BIN)/python -m reproductions $@
cancel: $(INSTALLED) ; @$(BIN)/python -m reproductions cancel $(if $(EXPERIMENT),'$(EXPERIMENT)') $(OUT_FLAG)
status publish: $(INSTALLED) ; @$(BIN)/python -m reproductions $@ $(OUT_FLAG)

slurm-up slurm-down slurm-status: ; @slurm/testcluster $(@:slurm-%=%)

venv: $(INSTALLED)
test: $(INSTALLED) ; $(BIN)/python -m pytest
bench: $(INSTALLED) ; $(BIN)/python -m benchmarks.throughput
reliability: $(INSTALLED) ; $(BIN)/python -m pytest tests/faults --reliability results/reliability.md

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	@touch $@
