# make demo, make test, make mutants: from a fresh clone with python3 and a C++ compiler, everything else goes into .venv.
# Variables: CUDA=AUTO|ON|OFF, ARCHS="80-real;...", WERROR=ON|OFF, PYTEST_ARGS="tests/test_build.py -k torch".
CUDA ?= AUTO
ARCHS ?= 80-real;90a-real;90-virtual
WERROR ?= OFF
PYTEST_ARGS ?= -n 2

torch := 2.13.0
python := .venv/bin/python
pip := $(python) -m pip --disable-pip-version-check
# Without build isolation and in a folder that stays: only what changed is compiled again.
install = $(pip) install -q --no-build-isolation -C build-dir=build/make -C cmake.define.EQUICONV_CUDA=$(CUDA) \
            -C "cmake.define.EQUICONV_CUDA_ARCHS=$(ARCHS)" -C cmake.define.EQUICONV_WERROR=$(WERROR)
sources := CMakeLists.txt pyproject.toml $(shell find csrc python bench build_support -type f \
             -not -path '*/__pycache__/*' -not -path '*/.*' -not -path 'bench/results/*')
cpp_sources = $(shell git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

.PHONY: demo test mutants bench build lint format clean
.DELETE_ON_ERROR:

# The first one takes about a minute, all of them half an hour.
demo: build
	for example in text recall molecules forces nbody; do $(python) -m equiconv demo $$example || exit 1; done

# Tests run beside each other: a thread that waits leaves its core to others.
test: build
	OMP_WAIT_POLICY=passive $(python) -m pytest $(PYTEST_ARGS)

mutants: build
	cd tests && ../$(python) -m cuda_on_cpu.mutants

bench: build
	$(python) -m equiconv bench

build: .venv/built

lint: build .venv/linters
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy -p equiconv
	cd build_support && ../$(python) -m mypy backend.py find_torch.py
	.venv/bin/clang-format --dry-run -Werror $(cpp_sources)

format: .venv/linters
	$(python) -m ruff check --fix
	$(python) -m ruff format
	.venv/bin/clang-format -i $(cpp_sources)

clean:
	rm -rf .venv build

.venv/built: .venv/torch .venv/settings $(sources)
	@echo "building equiconv (minutes the first time, then only what changed)"
	@$(install) '.[test]'
	@$(python) -c "import equiconv; i = equiconv.build_info(); print('built:', i['cpu_capability'], 'kernels,', \
	  'CUDA kernels for ' + i['cuda_archs'] if i['nvcc'] else 'no CUDA kernels (CUDA=OFF, or no nvcc)')"
	@touch $@

# Changes when a variable above does.
.venv/settings: .venv/torch FORCE
	@echo '$(CUDA) $(ARCHS) $(WERROR)' | cmp -s - $@ || echo '$(CUDA) $(ARCHS) $(WERROR)' > $@
FORCE:

.venv/linters: pyproject.toml | .venv/built
	$(install) '.[lint]'
	@touch $@

# Without a GPU the CPU build of torch, which is gigabytes smaller: from wherever pip is set up to look, else
# from PyTorch's own index, else whatever build there is.
.venv/torch:
	python3 -m venv .venv
	$(pip) install -q --upgrade pip
ifeq ($(shell command -v nvidia-smi),)
	$(pip) install -q torch==$(torch)+cpu \
	  || $(pip) install -q --retries 1 --timeout 10 torch==$(torch)+cpu \
	       --index-url https://download.pytorch.org/whl/cpu \
	  || $(pip) install -q torch==$(torch)
else
	$(pip) install -q torch==$(torch)
endif
	$(pip) install -q "scikit-build-core>=1.1" "pybind11>=3.0" cmake ninja
	@touch $@
