#!/usr/bin/env bash
# Builds, proves and measures the CUDA kernels on a machine with a GPU: bench/gpu_acceptance.sh FOLDER
# (options: gpu_acceptance.sh --help). Needs no network and leaves the installed packages alone.
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu_acceptance.py" "$@"
