# The lab's chain. Every stage is a file that its command writes last, so a killed stage never looks done, and `make sft`
# goes on from where it was. Stages depend on data, settings and model, not on code. GNU make 3.81 must do (macOS has it).

PROFILE ?= tiny
KNOWLEDGE ?= solverx_knowledge.jsonl
# The Python that makes .venv; PYTHON=... is used as it is, without .venv.
SYSTEM_PYTHON ?= python3
PYTHON ?= .venv/bin/python
# Processes that train as one: RANKS=2 here, or HOSTFILE=hosts.json for several machines (README: More than one machine).
RANKS ?= 1
HOSTFILE ?=

PROFILES := $(patsubst configs/%/profile.mk,%,$(sort $(wildcard configs/*/profile.mk)))
ifeq ($(wildcard configs/$(PROFILE)/profile.mk),)
$(error PROFILE=$(PROFILE): no such profile; there are: $(PROFILES))
endif
ifneq ($(words $(KNOWLEDGE)),1)
$(error KNOWLEDGE=$(KNOWLEDGE): make takes no path with blanks, nor an empty one; copy the file to a name without)
endif
ifeq ($(wildcard $(KNOWLEDGE)),)
$(error KNOWLEDGE=$(KNOWLEDGE): no such file; name a JSONL file of facts (solverx_knowledge.jsonl shows the format))
endif
include configs/$(PROFILE)/profile.mk
# The Gemma warm-up has profiles of its own: gemma, which any other profile stands for, and gemma9b.
GEMMA := $(if $(filter gemma%,$(PROFILE)),$(PROFILE),gemma)
IS_GEMMA := $(filter $(GEMMA),$(PROFILE))
HCX_TARGETS := data convert cpt sft verify claims no-replay forgetting
ifneq ($(and $(IS_GEMMA),$(filter $(HCX_TARGETS),$(MAKECMDGOALS))),)
$(error PROFILE=$(PROFILE): there is no `make $(firstword $(filter $(HCX_TARGETS),$(MAKECMDGOALS)))` for Gemma; `make gemma PROFILE=$(PROFILE)`)
endif

ifneq ($(and $(filter gemma9b,$(PROFILE)),$(filter compare-tuning,$(MAKECMDGOALS))),)
$(error PROFILE=$(PROFILE): compare-tuning trains the embedded Gemma alone; leave PROFILE out)
endif
ifneq ($(and $(filter-out solverx_knowledge.jsonl,$(KNOWLEDGE)),$(filter compare-tuning,$(MAKECMDGOALS))),)
$(error KNOWLEDGE=$(KNOWLEDGE): compare-tuning is about SolverX alone; leave KNOWLEDGE out)
endif

# solverx_knowledge.jsonl -> solverx; any folder in front is left out.
NAME := $(patsubst %_knowledge,%,$(patsubst %.jsonl,%,$(notdir $(KNOWLEDGE))))
CPT_DATA := data_$(NAME)_cpt
SFT_DATA := data_$(NAME)_sft
CPT := adapters_$(NAME)_cpt_$(PROFILE)
SFT := adapters_$(NAME)_sft_$(PROFILE)
# SFT at other shares of general rows, in percent, and with self-generated ones at the default's share. The default is SFT.
DEFAULT_SHARE := $(shell awk '/^replay:/ { printf "%d", 100 * $$2 + 0.5 }' configs/data.yaml)
SHARES := $(filter-out $(DEFAULT_SHARE),0 10 25 50 75)
POINTS := $(SHARES) self_$(DEFAULT_SHARE)
SELF_DATA := data_$(NAME)_replay_$(PROFILE)
point_data = data_$(NAME)_sft_replay_$(1)$(if $(filter self_%,$(1)),_$(PROFILE))
point = adapters_$(NAME)_sft_replay_$(1)_$(PROFILE)
NO_REPLAY := $(call point,0)
OTHER := $(if $(filter-out solverx_knowledge.jsonl,$(KNOWLEDGE)),-$(NAME))
RUN := runs/$(PROFILE)$(OTHER)
GEMMA_MODEL := $(shell sed -n 's/^MODEL := *//p' configs/$(GEMMA)/profile.mk)
GEMMA_DATA := data_mlx$(OTHER)
GEMMA_RUN := runs/$(GEMMA)$(OTHER)
# adapters/ is the seed's name for the 9B's.
LORA := $(if $(filter gemma9b,$(GEMMA)),adapters,adapters_gemma_tiny)$(OTHER)
# {"question", "accept"} a line, asked of both; the seed's are on SolverX.
QUESTIONS ?= $(if $(OTHER),,configs/gemma/questions.jsonl)
# An interrupted stage goes on; one whose data, model or settings changed is trained again.
GO_ON := --resume --overwrite
LAUNCH := $(if $(HOSTFILE),--hostfile $(HOSTFILE),$(if $(filter-out 1,$(RANKS)),--ranks $(RANKS)))
TRAIN := $(if $(LAUNCH),$(PYTHON) -m lab.launch $(LAUNCH) -- )$(PYTHON) train_with_early_stopping.py
GENERAL := $(sort $(wildcard data_general/*.yaml))
# A folder in the layout of KMMLU's files, instead of the hub; PROFILE=tiny has a sample of its own, which is not KMMLU.
KMMLU_DATA ?= $(if $(filter tiny gemma,$(PROFILE)),data_kmmlu_sample)
KMMLU_FLAGS ?=

# Order-only wherever it is used: a new .venv does not make finished stages old.
INSTALLED := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/.installed)
INSTALLED_TEST := $(addsuffix -test,$(INSTALLED))
INSTALLED_DEV := $(addsuffix -dev,$(INSTALLED))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
.PHONY: help setup data convert cpt sft verify report claims kmmlu no-replay forgetting gemma compare-tuning tiny-model test \
  crashtest test-reference lint doctor clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo "Settings: PROFILE=tiny|hcx|gemma|gemma9b (now $(PROFILE)), KNOWLEDGE=facts.jsonl (now $(KNOWLEDGE)), PYTHON=python3 (no .venv), RANKS=2"

# --- setup

# nvidia-smi answers with the newest CUDA that its driver runs; MLX has builds for 12 and for 13.
CUDA = $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA [A-Z ]*Version: *\([0-9]*\).*/\1/p' | head -n 1)
LINUX_BUILD = $(if $(filter-out 8 9 10 11,$(CUDA)),$(if $(filter 12,$(CUDA)),cuda12,cuda13),cpu)
MLX_BUILD = $(if $(filter Darwin,$(shell uname -s)),mlx,mlx[$(LINUX_BUILD)])
NEW_ENOUGH = $(shell $(SYSTEM_PYTHON) -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)
PIP_INSTALL := .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check

# The shim is built each time: it is what a C compiler installed later needs.
setup: $(INSTALLED) ## make .venv, with MLX's build for this machine and a fast BLAS
	$(PYTHON) -m lab.blas

.venv/.installed: requirements.txt
	$(if $(filter True,$(NEW_ENOUGH)),,$(error SYSTEM_PYTHON=$(SYSTEM_PYTHON): needs Python 3.11; try SYSTEM_PYTHON=python3.12))
	@echo "setup: $(MLX_BUILD) and requirements.txt into .venv (600 MB and a minute or two; more with CUDA)"
	$(SYSTEM_PYTHON) -m venv .venv
	$(PIP_INSTALL) -r requirements.txt '$(MLX_BUILD)'
	.venv/bin/python -m lab.blas
	@touch $@

.venv/.installed-test: requirements-test.txt .venv/.installed
	@echo "setup: pytest and ruff into .venv"
	$(PIP_INSTALL) -r requirements-test.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed-test
	@echo "setup: torch into .venv (200 MB, or gigabytes of CUDA on Linux: see requirements-dev.txt)"
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

# --- stages

# Another file of the same name in another folder shares these folders, and prepare_mlx_data.py may have put a table's rows
# there: made from something else, they are made again.
made_from = $(shell sed -n 's/^ *"knowledge": "\(.*\)".*/\1/p' $(1)/summary.json 2>/dev/null)
if_other = $(if $(wildcard $(1)/summary.json),$(if $(filter $(KNOWLEDGE),$(call made_from,$(1))),,FORCE))

data: $(CPT_DATA)/summary.json $(SFT_DATA)/summary.json ## rows for CPT and SFT from KNOWLEDGE

$(CPT_DATA)/summary.json: $(KNOWLEDGE) $(call if_other,$(CPT_DATA)) | $(INSTALLED)
	$(PYTHON) prepare_solverx_cpt_data.py --knowledge $(KNOWLEDGE) --output-dir $(@D)

$(SFT_DATA)/summary.json: $(KNOWLEDGE) $(GENERAL) configs/data.yaml $(call if_other,$(SFT_DATA)) | $(INSTALLED)
	$(PYTHON) prepare_solverx_sft_data.py -c configs/data.yaml --knowledge $(KNOWLEDGE) --output-dir $(@D)

convert: $(MODEL)/summary.json ## the checkpoint's text part, in 8 bit

# Where the checkpoint is missing the command says how to get it; once converted, it may be deleted.
# Gemma is taken as it is: a clone's files are of any age, and one that is newer than its summary must not start this.
ifeq ($(IS_GEMMA),)
$(MODEL)/summary.json: $(wildcard $(HF_MODEL)/*) | $(INSTALLED)
	$(PYTHON) convert_hyperclova.py --hf-path $(HF_MODEL) --mlx-path $(MODEL) --q-bits 8 --q-group-size 64 --force
endif

cpt: $(CPT)/summary.json ## continued pre-training on the company's sentences

$(CPT)/summary.json: $(MODEL)/summary.json $(CPT_DATA)/summary.json configs/$(PROFILE)/cpt.yaml | $(INSTALLED)
	$(TRAIN) -c configs/$(PROFILE)/cpt.yaml --model $(MODEL) --train \
	  --data $(CPT_DATA) --adapter-path $(CPT) $(GO_ON)

$(SFT)/summary.json: $(CPT)/summary.json $(SFT_DATA)/summary.json configs/$(PROFILE)/sft.yaml | $(INSTALLED)
	$(TRAIN) -c configs/$(PROFILE)/sft.yaml --model $(MODEL) --train \
	  --data $(SFT_DATA) --resume-adapter-file $(CPT)/adapters.safetensors --adapter-path $(SFT) $(GO_ON)

verify: $(RUN)/report.json ## measure base, CPT and SFT

$(RUN)/report.json: $(MODEL)/summary.json $(CPT)/summary.json $(SFT)/summary.json $(KNOWLEDGE) $(GENERAL) | $(INSTALLED)
	$(PYTHON) compare_hcx_stages.py --model $(MODEL) --knowledge $(KNOWLEDGE) \
	  --adapter-path base cpt=$(CPT) sft=$(SFT) --output $@ --profile $(PROFILE) --no-table

sft: $(RUN)/report.json ## everything: data, convert, CPT, SFT from the CPT adapter, the table
	$(PYTHON) compare_hcx_stages.py --report $(RUN)/report.json

claims: $(RUN)/report.json ## which of the seed's findings hold for what was measured
	$(PYTHON) check_claims.py --run $(RUN)

# A claim that does not hold (exit code 3) is on the page; a file that cannot be judged (1) ends it here.
report: $(if $(IS_GEMMA),$(GEMMA_RUN)/models.json,$(RUN)/report.json) ## one page of all that was measured: report.html, and report.md for a model card
	$(if $(IS_GEMMA),,$(PYTHON) check_claims.py --run $(RUN) > /dev/null || [ $$? -eq 3 ])
	$(PYTHON) render_report.py --run $(RUN)

# --- side rooms

no-replay: $(RUN)/no_replay.json ## SFT without general rows: the colour-glasses effect, for the record
	$(PYTHON) compare_hcx_stages.py --report $(RUN)/no_replay.json

$(RUN)/no_replay.json: $(MODEL)/summary.json $(CPT)/summary.json $(SFT)/summary.json $(NO_REPLAY)/summary.json \
  $(KNOWLEDGE) $(GENERAL) | $(INSTALLED)
	$(PYTHON) compare_hcx_stages.py --model $(MODEL) --knowledge $(KNOWLEDGE) \
	  --adapter-path base cpt=$(CPT) sft=$(SFT) no-replay=$(NO_REPLAY) --output $@ --profile $(PROFILE) --no-table

# Asked otherwise than before, it is measured again; items of the same settings are kept.
KMMLU_ASKED := $(subst ",,$(subst ',,$(strip $(KMMLU_DATA) $(KMMLU_FLAGS))))
KMMLU_BEFORE := $(shell cat $(RUN)/kmmlu.flags 2>/dev/null)
KMMLU_OTHER := $(if $(wildcard $(RUN)/kmmlu.flags),$(subst x$(KMMLU_ASKED)x,,x$(KMMLU_BEFORE)x))

# What is asked: an HyperCLOVA X chain's stages, or Gemma and its adapter.
KMMLU_STAGES := base $(if $(IS_GEMMA),tuned=$(LORA),cpt=$(CPT) sft=$(SFT))
KMMLU_MODEL := $(if $(IS_GEMMA),$(GEMMA_MODEL),$(MODEL))
KMMLU_COMMAND := $(if $(IS_GEMMA),evaluate_kmmlu_gemma.py,evaluate_kmmlu_8bit.py)
KMMLU_NEEDS := $(if $(IS_GEMMA),$(LORA)/summary.json,$(MODEL)/summary.json $(CPT)/summary.json $(SFT)/summary.json)

kmmlu: $(RUN)/kmmlu.json ## KMMLU of base and tuned models; goes on where it was stopped. KMMLU_FLAGS="--subset Law --shots 5"

data_kmmlu_sample/summary.json: $(GENERAL) | $(INSTALLED)
	$(PYTHON) prepare_kmmlu_sample.py --output-dir $(@D)

$(RUN)/kmmlu.json: $(KMMLU_NEEDS) \
  $(addsuffix /summary.json,$(filter data_kmmlu_sample,$(KMMLU_DATA))) $(if $(KMMLU_OTHER),FORCE) | $(INSTALLED)
	$(PYTHON) $(KMMLU_COMMAND) --model $(KMMLU_MODEL) --adapter-path $(KMMLU_STAGES) \
	  $(if $(KMMLU_DATA),--data-dir $(KMMLU_DATA)) $(KMMLU_FLAGS) --output $@
	@printf '%s\n' '$(KMMLU_ASKED)' > $(@D)/kmmlu.flags

forgetting: $(RUN)/forgetting.json ## SFT at several shares of general rows: what each keeps and what it forgets (long)
	$(PYTHON) compare_replay.py --report $(RUN)/forgetting.json

$(RUN)/forgetting.json: $(MODEL)/summary.json $(SFT)/summary.json $(foreach P,$(POINTS),$(call point,$(P))/summary.json) \
  $(KNOWLEDGE) $(GENERAL) | $(INSTALLED)
	$(PYTHON) compare_replay.py --model $(MODEL) --knowledge $(KNOWLEDGE) --output $@ --default replay-$(DEFAULT_SHARE) \
	  --adapter-path base replay-$(DEFAULT_SHARE)=$(SFT) \
	  $(foreach P,$(SHARES),replay-$(P)=$(call point,$(P))) self-$(DEFAULT_SHARE)=$(call point,self_$(DEFAULT_SHARE))

define SHARE_DATA
$(call point_data,$(1))/summary.json: $(KNOWLEDGE) $(GENERAL) configs/data.yaml \
  $(call if_other,$(call point_data,$(1))) | $(INSTALLED)
	$(PYTHON) prepare_solverx_sft_data.py -c configs/data.yaml --knowledge $(KNOWLEDGE) \
	  --replay $(shell awk 'BEGIN { print $(1) / 100 }') --output-dir $$(@D)
endef
$(foreach P,$(SHARES),$(eval $(call SHARE_DATA,$(P))))

# The base model's own answers, in place of the authored ones.
$(SELF_DATA)/summary.json: $(MODEL)/summary.json $(KNOWLEDGE) $(GENERAL) $(call if_other,$(SELF_DATA)) | $(INSTALLED)
	$(PYTHON) prepare_replay_data.py --model $(MODEL) --knowledge $(KNOWLEDGE) --output-dir $(@D)

$(call point_data,self_$(DEFAULT_SHARE))/summary.json: $(SELF_DATA)/summary.json configs/data.yaml | $(INSTALLED)
	$(PYTHON) prepare_solverx_sft_data.py -c configs/data.yaml --knowledge $(KNOWLEDGE) \
	  --replay-file $(SELF_DATA)/train.jsonl --output-dir $(@D)

define POINT
$(call point,$(1))/summary.json: $(CPT)/summary.json $(call point_data,$(1))/summary.json \
  configs/$(PROFILE)/sft_replay.yaml | $(INSTALLED)
	$(TRAIN) -c configs/$(PROFILE)/sft_replay.yaml --model $(MODEL) --train --data $(call point_data,$(1)) \
	  --resume-adapter-file $(CPT)/adapters.safetensors --adapter-path $$(@D) $(GO_ON)
endef
$(foreach P,$(POINTS),$(eval $(call POINT,$(P))))

tiny-model: | $(INSTALLED) ## pre-train the embedded checkpoints again, from data_general/ alone (an hour)
	$(PYTHON) make_tiny_model.py --family hyperclovax --force
	$(PYTHON) make_tiny_model.py --family gemma2 --force

# --- the Gemma warm-up

gemma: $(GEMMA_RUN)/general.json $(GEMMA_RUN)/models.json ## the warm-up on Gemma-2: data, LoRA, answers, base against tuned, what was kept
	$(PYTHON) render_report.py --run $(GEMMA_RUN)

$(GEMMA_DATA)/summary.json: $(KNOWLEDGE) $(GENERAL) configs/data.yaml $(call if_other,$(GEMMA_DATA)) | $(INSTALLED)
	$(PYTHON) prepare_mlx_data.py -c configs/data.yaml --knowledge $(KNOWLEDGE) --output-dir $(@D)

ANSWERS := $(GEMMA_RUN)/answers_base.jsonl $(GEMMA_RUN)/answers_tuned.jsonl
GEMMA_ASKED := recall recall_paraphrase general general_mixed general_unmixed glasses mab_ts

# An embedded model is made anew by hand; one on the hub has no file here.
GEMMA_FILES := $(wildcard $(GEMMA_MODEL)/summary.json)
train_gemma = $(TRAIN) -c configs/$(GEMMA)/$(1).yaml --model $(GEMMA_MODEL) --train --data $(GEMMA_DATA) \
  --adapter-path $(@D) $(GO_ON)

$(LORA)/summary.json: $(GEMMA_FILES) $(GEMMA_DATA)/summary.json configs/$(GEMMA)/lora.yaml | $(INSTALLED)
	$(call train_gemma,lora)

# The seed's questions, answered by both; the company is named where the seed's table leaves that to its heading.
$(GEMMA_RUN)/answers_base.jsonl: $(GEMMA_FILES) $(QUESTIONS) | $(INSTALLED)
	$(PYTHON) infer_gemma.py --model $(GEMMA_MODEL) --file $(QUESTIONS) --output $@ $(GO_ON)

$(GEMMA_RUN)/answers_tuned.jsonl: $(LORA)/summary.json $(QUESTIONS) | $(INSTALLED)
	$(PYTHON) infer_gemma_lora.py --model $(GEMMA_MODEL) --adapter-path $(LORA) --file $(QUESTIONS) --output $@ \
	  $(GO_ON)

$(GEMMA_RUN)/models.json: $(LORA)/summary.json $(if $(QUESTIONS),$(ANSWERS)) $(KNOWLEDGE) $(GENERAL) $(QUESTIONS) | $(INSTALLED)
	$(PYTHON) compare_models.py --model $(GEMMA_MODEL) --knowledge $(KNOWLEDGE) \
	  $(if $(QUESTIONS),--questions $(QUESTIONS)) --metrics $(GEMMA_ASKED) \
	  --adapter-path base tuned=$(LORA) --output $@ --profile $(GEMMA)

$(GEMMA_RUN)/general.json: $(GEMMA_RUN)/models.json | $(INSTALLED)
	$(PYTHON) verify_general_performance.py --model $(GEMMA_MODEL) --knowledge $(KNOWLEDGE) \
	  --adapter-path base tuned=$(LORA) --output $@

# The same data and updates, three ways to train; the embedded model only: full fine-tuning keeps five copies of the weights,
# 92 GB for 9B parameters in bfloat16.
compare-tuning: runs/gemma/models.json runs/gemma/tuning.json ## LoRA, DoRA and full fine-tuning of the embedded Gemma side by side (long)
	$(PYTHON) render_report.py --run $(<D)

runs/gemma/tuning.json: adapters_gemma_tiny/summary.json adapters_gemma_tiny_dora/summary.json \
  adapters_gemma_tiny_full/summary.json solverx_knowledge.jsonl $(GENERAL) | $(INSTALLED)
	$(PYTHON) compare_models.py --model models/Gemma-2-Tiny --output $@ --repeats 9 \
	  --adapter-path base lora=adapters_gemma_tiny dora=adapters_gemma_tiny_dora full=adapters_gemma_tiny_full

define TUNED
adapters_gemma_tiny_$(1)/summary.json: models/Gemma-2-Tiny/summary.json data_mlx/summary.json configs/gemma/$(1).yaml | $(INSTALLED)
	$$(call train_gemma,$(1))
endef
$(foreach T,dora full,$(eval $(call TUNED,$(T))))

# --- checks

doctor: | $(INSTALLED) ## what this machine has and lacks for PROFILE, each with its remedy
	@$(PYTHON) doctor.py --profile $(PROFILE)

# Two at a time, a file's tests on one of them: what a file has made for its tests is made once. One BLAS thread each.
test: | $(INSTALLED_TEST) ## the tests
	OPENBLAS_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not reference"

crashtest: | $(INSTALLED_TEST) ## 200 kills of real trainers, 100 of conversions, and a crash and an error at every step of writing (some 40 minutes)
	$(PYTHON) tests/crash_runs.py --kills 200
	CRASH_EVERY=1 $(PYTHON) -m pytest -s tests/test_resume.py -k any_step_of_writing
	CRASH_EVERY=1 KILLS=100 STOPS=60 $(PYTHON) -m pytest -s tests/test_conversion_crash.py

test-reference: | $(INSTALLED_DEV) ## the tests against other people's code (needs torch)
	$(PYTHON) -m pytest -m reference

lint: | $(INSTALLED_TEST) ## ruff: faults and form
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

# models/, data_general/ and .venv stay. Links are removed, not what they point to.
clean: ## remove data, adapters, runs and caches; never models/
	@for path in runs adapters_* data_*_cpt data_*_sft data_*_sft_replay_* data_*_replay_* data_kmmlu_sample data_mlx data_mlx-* adapters adapters-* \
	    .pytest_cache .ruff_cache \
	    __pycache__ lab/__pycache__ tests/__pycache__ bench/__pycache__; do \
	  if [ -d "$$path" ]; then echo "removing $$path"; rm -rf "$$path"; fi; \
	done
