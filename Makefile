# The user's commands; docs/usage.md explains them. Every target that needs Python creates .venv and installs into it.
#
#   make reproduce-cifar-table PROFILE=smoke
#   make gpu-check MINUTES=10     whether a new kind of GPU is safe to use, and how fast it is; ANEW=1 does it all again
#
# PROFILE=paper|short|smoke  LAUNCHER=auto|inline|local|slurm  SEEDS=5  ROWS=resnet20,resnet56  DATA=dir  OUT=runs
# DATASET=cifar10|cifar100|imagenet (of bag of tricks), canvas|voc|ade20k (of transfer)  TRAIN_IMAGES=45000
# BACKBONES="FILE ..." (of transfer)  PRECISION=fp32|bf16|fp16  DEVICE=cuda:1
# KERNELS=library|fused (fused: not yet run on a GPU)  PACK=auto|8  SLOTS=2  YES=1  DRY_RUN=1
# SET="weight_decay=5e-4 learning_rate=0.05": other values than the table's
# SWEEP="learning_rate=0.05,0.1,0.2 weight_decay=1e-4,5e-4": all combinations, ranked on held-out training images
# MINUTES=10: what is lacking, as far as the time goes, ALL=1: also what is published here;
# make reproduce-all MINUTES=10: of Table 6, the degradation and Bag of Tricks
# TRACK=tensorboard|wandb|trackio: curves while runs are trained; make status JSON=1: for programs
# SLURM_PROFILE=mycluster  DETACH=1  EXPERIMENT=degradation (of make cancel and make export)
# TO=folder (of make export and make publish)

# A module's for its own Python: it would take the place of the environment's.
unexport PYTHONHOME

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# A misspelt variable, or one that the target does not read, would else be a run with other values than were asked for.
LAUNCHING := LAUNCHER DATA OUT DEVICE PACK SLOTS SLURM_PROFILE DETACH DRY_RUN MINUTES ALL TRACK
TABLE := PROFILE SEEDS ROWS DATASET TRAIN_IMAGES PRECISION KERNELS SET SWEEP BACKBONES YES $(LAUNCHING)
VARIABLES := $(TABLE) EXPERIMENT TO ANEW JSON PYTHON
READ_BY_cancel := EXPERIMENT OUT
READ_BY_status := OUT JSON
READ_BY_publish := OUT TO
READ_BY_export := OUT TO DATA EXPERIMENT ROWS PROFILE TRAIN_IMAGES PRECISION KERNELS SET
READ_BY_gpu-check := MINUTES ANEW
READ_BY_reproduce-all = $(if $(MINUTES),$(LAUNCHING),$(TABLE))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
$(if $(filter-out $(VARIABLES) MAKEFLAGS MAKEOVERRIDES -*-command-variables-*-,$(GIVEN)),$(error there is no variable \
	$(filter-out $(VARIABLES),$(GIVEN)); the variables are: $(VARIABLES)))
READ := PYTHON $(foreach goal,$(MAKECMDGOALS),$(or $(READ_BY_$(goal)),$(if $(filter reproduce-%,$(goal)),$(TABLE))))
$(if $(filter-out $(READ),$(filter $(VARIABLES),$(GIVEN))),$(error make $(MAKECMDGOALS) does not read \
	$(sort $(filter-out $(READ),$(filter $(VARIABLES),$(GIVEN)))); it reads: $(READ)))
on = $(filter-out 0 no No NO false False FALSE off Off OFF,$(1))

flag = $(if $($(1)),--$(2) '$($(1))')
switch = $(if $(call on,$($(1))),--$(2))
OUT_FLAG = $(call flag,OUT,out)
RECIPE_FLAGS = $(call flag,PROFILE,profile) $(call flag,ROWS,rows) $(call flag,TRAIN_IMAGES,train-images) \
	$(call flag,PRECISION,precision) $(call flag,KERNELS,kernels) $(call flag,SET,set)
LAUNCH_FLAGS = $(call flag,LAUNCHER,launcher) $(call flag,DATA,data) $(OUT_FLAG) $(call flag,DEVICE,device) \
	$(call flag,PACK,pack) $(call flag,SLOTS,slots) $(call flag,SLURM_PROFILE,slurm-profile) \
	$(call switch,DETACH,detach) $(call switch,DRY_RUN,dry-run) $(call flag,MINUTES,minutes) $(call switch,ALL,all) \
	$(call flag,TRACK,track)
FLAGS = $(RECIPE_FLAGS) $(call flag,SEEDS,seeds) $(call flag,DATASET,dataset) $(call flag,SWEEP,sweep) \
	$(call flag,BACKBONES,backbones) $(call switch,YES,yes) $(LAUNCH_FLAGS)

# A target for each table's script or folder: reproduce-cifar-table runs reproductions/cifar_table.py.
TABLES := cifar-table degradation precision protocol-details layer-responses cifar-imagenet-stem mnist-residual finetune
BAG_OF_TRICKS := bag-of-tricks-efficient bag-of-tricks-tweaks bag-of-tricks-refinements
TRANSFER := transfer-segmentation transfer-detection
REPRODUCE := $(addprefix reproduce-,$(TABLES) $(BAG_OF_TRICKS) imagenet-table $(TRANSFER))

OTHERS := reproduce-bag-of-tricks reproduce-all report check status cancel list plan publish export \
	slurm-up slurm-down slurm-status venv test test-slow test-all lint bench gpu-check reliability

.PHONY: help $(REPRODUCE) $(OTHERS)

help: ; @sed -n '/^$$/q;s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST)); echo "targets: $(REPRODUCE) $(OTHERS)"

MODULE = $(subst transfer_,transfer.,$(subst bag_of_tricks_,bag_of_tricks.,$(patsubst imagenet_table,imagenet,$(subst -,_,$(1)))))
RUN = $(BIN)/python -m reproductions.$(MODULE) $(FLAGS)

$(REPRODUCE): reproduce-%: $(INSTALLED) ; @$(call RUN,$*)

reproduce-bag-of-tricks: $(INSTALLED)
	@$(call RUN,bag-of-tricks)

# One that fails, or is refused, for want of ImageNet say, does not keep the others from their turn; Ctrl-C (130) does.
OR_NOTE = || { test $$? -ne 130 || exit 130; failed="$$failed $(1)"; };
reproduce-all: $(INSTALLED)
ifdef MINUTES
	@$(BIN)/python -m reproductions evidence $(LAUNCH_FLAGS)
else
	@failed=; \
	$(foreach table,$(TABLES) $(BAG_OF_TRICKS) imagenet-table,$(call RUN,$(table)) $(call OR_NOTE,$(table)) )\
	$(foreach table,$(BAG_OF_TRICKS),$(call RUN,$(table)) --dataset imagenet $(call OR_NOTE,$(table)-imagenet) )\
	$(foreach table,$(TRANSFER),$(call RUN,$(table)) $(call OR_NOTE,$(table)) )\
	$(call RUN,transfer-segmentation) --dataset ade20k $(call OR_NOTE,transfer-segmentation-ade20k) \
	$(call RUN,transfer-detection) --dataset voc $(call OR_NOTE,transfer-detection-voc) \
	test -z "$$failed" || { echo "not complete:$$failed" >&2; exit 1; }
endif

report check list plan: $(INSTALLED) ; @$(BIN)/python -m reproductions $@
cancel: $(INSTALLED) ; @$(BIN)/python -m reproductions cancel $(if $(EXPERIMENT),'$(EXPERIMENT)') $(OUT_FLAG)
status: $(INSTALLED) ; @$(BIN)/python -m reproductions status $(OUT_FLAG) $(call switch,JSON,json)
publish: $(INSTALLED) ; @$(BIN)/python -m reproductions publish $(OUT_FLAG) $(call flag,TO,to)
export: $(INSTALLED)
	@$(BIN)/python -m reproductions export $(OUT_FLAG) $(call flag,TO,to) $(call flag,DATA,data) \
		$(call flag,EXPERIMENT,experiment) $(RECIPE_FLAGS)

slurm-up slurm-down slurm-status: ; @slurm/testcluster $(@:slurm-%=%)

venv: $(INSTALLED)
# Two processes, each with files of its own: its fixtures are made once. test: minutes; test-slow: all that test leaves.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
test: $(INSTALLED) ; $(PYTEST)
test-slow: $(INSTALLED) ; $(PYTEST) -m 'slow or slurm or faults'
test-all: $(INSTALLED) ; $(PYTEST) -m ''
lint: $(INSTALLED) ; $(BIN)/ruff check . && $(BIN)/ruff format --check .
bench: $(INSTALLED) ; $(BIN)/python -m benchmarks.throughput
gpu-check: $(INSTALLED) ; @$(BIN)/python -m benchmarks.gpu_check $(call flag,MINUTES,minutes) $(call switch,ANEW,anew)
reliability: $(INSTALLED) ; $(BIN)/python -m pytest tests/faults -m faults --reliability results/reliability.md

# Clusters have pip install elsewhere (PIP_USER=1, or the same in a configuration), which is not for an environment of
# its own, and nor are packages that PYTHONPATH shows it as installed. Settings such as indexes and certificates stay.
# An empty value in the environment's own configuration stands for no value, before those of the machine and the user;
# a file that PIP_CONFIG_FILE names comes after it.
PIP = unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONPATH; \
	if test -f "$$PIP_CONFIG_FILE"; then \
		sed -E '/^[[:space:]]*(user|target|prefix)[[:space:]]*[=:]/d' "$$PIP_CONFIG_FILE" >$(VENV)/pip.user.conf && \
		export PIP_CONFIG_FILE=$(VENV)/pip.user.conf; \
	fi; $(BIN)/python -m pip

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	@printf '[%s]\nuser =\ntarget =\nprefix =\n' global install >$(VENV)/pip.conf
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,bench]'
	@touch $@
