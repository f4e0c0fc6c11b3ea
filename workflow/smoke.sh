#!/usr/bin/env bash
# The smoke preset from two clean clones at once, one through each engine: both must end with the same dvc.lock.
set -euo pipefail
set -m # each engine has a process group, which ends as a whole
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'kill -- $(jobs -p | sed "s/^/-/") 2>/dev/null || true; rm -rf "$place"' EXIT

make_all() (
    clone=$place/${1%% *}
    git clone --quiet "$root" "$clone"
    cd "$clone"
    rm -rf dvc.lock metrics records # what the clone has of these is of the default suite
    find results -maxdepth 1 -type f ! -name published.csv -delete
    cp workflow/presets/smoke.yaml params.yaml
    PYTHONPATH=$clone/src $1
    dvc status
)

jobs=()
for engine in "snakemake --cores all" "dvc repro"; do # `dvc repro` runs one stage at a time
    make_all "$engine" 2>&1 | sed -u "s/^/${engine%% *}: /" &
    jobs+=($!)
done
failed=0
for job in "${jobs[@]}"; do
    wait "$job" || failed=1
done
((failed)) && exit 1
cmp "$place/snakemake/dvc.lock" "$place/dvc/dvc.lock"
echo "== both engines made the same dvc.lock"
