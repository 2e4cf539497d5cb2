#!/usr/bin/env bash
# The tests under settings that stand for other processors, one file after another:
#     bash tests/settings.sh [FILE OR PYTEST OPTION …]
# PYTHON is the interpreter, and SETTINGS a file of settings, one a line, in place of those below.
# Prints one line for each file and setting, and what failed; exits with 1 if anything did.
set -uo pipefail
cd "$(dirname "$0")/.."
options=() files=()
for argument; do
    case $argument in -*) options+=("$argument") ;; *) files+=("$argument") ;; esac
done
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(find tests -name 'test_*.py' | sort)

# Each value of each variable stands in one line at least.
settings() {
    cat "${SETTINGS:-/dev/stdin}" <<'END'
ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 LICODEC_TEST_PRECISION=float32
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=2 LICODEC_TEST_PRECISION=float32
ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 LICODEC_TEST_PRECISION=bf16
OMP_NUM_THREADS=1 LICODEC_TEST_PRECISION=bf16
OMP_NUM_THREADS=2 LICODEC_TEST_PRECISION=float32
END
}

failed=0
while read -r setting; do
    echo "== $setting"
    for file in "${files[@]}"; do
        if output=$(env $setting "${PYTHON:-python}" -m pytest -q -p no:cacheprovider "${options[@]}" "$file" 2>&1 </dev/null)
        then
            echo "ok      $file: $(tail -n 1 <<<"$output")"
        elif [ $? = 5 ]; then # nothing is left of it by the options
            continue
        else
            failed=1
            echo "FAILED  $file"
            sed 's/^/    /' <<<"$output"
        fi
    done
done < <(settings)
exit $failed
