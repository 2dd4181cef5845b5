#!/usr/bin/env bash
# What a machine with a GPU is to tell, in the order in which it matters, each step with a time limit
# so that a hang costs that step only. Run by ./dev gpu-test; OUT (default: build/gpu) gets the logs.
#
#   gpu_test.sh PROGRAMS [check] [sanitize] [bench]
set -uo pipefail

programs=$1; shift
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(check sanitize bench)
out=${OUT:-build/gpu}
mkdir -p "$out"
failed=0

# step NAME SECONDS COMMAND...: the last lines of a failure, one line of a success.
step() {
  local name=$1 limit=$2 start=$SECONDS status; shift 2
  timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  if [ $status -eq 0 ]; then
    printf -- '-- %s: ok (%d s): %s\n' "$name" $((SECONDS - start)) "$(tail -n 2 "$out/$name.log" | tr '\n' ' ')"
  else
    printf -- '-- %s: FAILED with %d (%d s)\n' "$name" $status $((SECONDS - start))
    tail -n 30 "$out/$name.log"
    failed=$((failed + 1))
  fi
  return $status
}

# The operations one by one, so that the first wrong kernel is known by name, then whole models.
part_check() {
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  step version 60 "$programs/dsctl" version --verbose
  cat "$out/version.log"
  local name
  for name in 'embed gives*' 'norm_linear applies*' 'norm_linear multiplies*' 'Products keep*' \
    "A token's product*" 'linear_add*' 'gated_ffn*' 'rope_store*' 'Attention*' 'head computes*' \
    'sample chooses*' 'A greedy row*' 'Of equal best*'; do
    step "op_${name//[^a-zA-Z]/_}" 120 "$programs/cuda_tests" "$name" ||
      DSCTL_TEST_CUDA_SYNC=1 step "op_${name//[^a-zA-Z]/_}_sync" 120 "$programs/cuda_tests" "$name"
  done
  for name in 'Models of*' 'Only the last*' 'CUDA agrees*' 'On CUDA a prompt*' 'On CUDA sequences*'; do
    step "model_${name//[^a-zA-Z]/_}" 180 "$programs/cuda_tests" "$name"
  done
  if [ -n "${DSCTL_TEST_MODEL:-}" ]; then
    step model_real 240 "$programs/cuda_tests" "A real model*" -s
    grep divergence "$out/model_real.log"
  fi
}

# Small shapes only: the tools slow kernels down a hundred times.
part_sanitize() {
  local tool checker
  checker=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
  if [ -z "$checker" ]; then echo "-- sanitize: no compute-sanitizer here"; return; fi
  for tool in memcheck racecheck initcheck synccheck; do
    step "sanitize_$tool" 150 "$checker" --tool $tool --error-exitcode 9 "$programs/cuda_tests" \
      'norm_linear applies*,Products keep*,linear_add*,gated_ffn*,rope_store*,head computes*,sample chooses*,Attention of*'
  done
}

part_bench() {
  step bench_tiny 60 "$programs/cuda_model_bench" tiny && cat "$out/bench_tiny.log"
  step bench_8b 240 "$programs/cuda_model_bench" llama3-8b
  cat "$out/bench_8b.log"
}

for part in "${parts[@]}"; do
  case $part in
    check | sanitize | bench) echo "== $part"; "part_$part" ;;
    *) echo "unknown part '$part'; expected check, sanitize or bench" >&2; exit 2 ;;
  esac
done
echo "$failed steps failed"
[ $failed -eq 0 ]
