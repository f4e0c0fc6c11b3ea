#!/usr/bin/env bash
# The smoke preset from two clean clones, one through each engine: both must end with the same dvc.lock.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

for engine in "snakemake --cores all" "dvc repro"; do
    clone=$place/${engine%% *}
    git clone --quiet "$root" "$clone"
    cd "$clone"
    rm -rf dvc.lock metrics results/*.* # what the clone has of these is of the default suite
    cp workflow/presets/smoke.yaml params.yaml
    echo "== $engine"
    PYTHONPATH=$clone/src $engine
    dvc status
done
cmp "$place/snakemake/dvc.lock" "$place/dvc/dvc.lock"
echo "== both engines made the same dvc.lock"
