#!/usr/bin/env bash
# The linters of which some findings do not apply here: snakemake --lint and pydoclint.
set -euo pipefail
cd "$(dirname "$0")/.."

# Environments: constraints.txt pins one for all rules. PYTHONPATH: the workflow sets it, a user need not. Param stage: it is
# the name of the stage, and that of `report` is the name of its folder, too.
accepted='Specify a conda environment or container|Environment variable PYTHONPATH|Param stage is a prefix'
found=$(snakemake --lint 2>&1 || true)
if ! grep -q 'Specify a conda environment' <<<"$found"; then
    echo "$found"
    echo "snakemake --lint did not reach the rules"
    exit 1
fi
if grep -E '^    \* ' <<<"$found" | grep -vE "$accepted"; then
    echo "snakemake --lint reports the problems above; without the filter of workflow/lint.sh it says where"
    exit 1
fi

# A docstring need not have a section for each argument or for the result, but its sections must match the signature.
# pydoclint exits with 1 for any finding, which `pipefail` would make the pipeline's result: its output decides.
accepted='DOC101|DOC201|DOC402|DOC103((?!in the docstring but not).)*$'
found=$(pydoclint --quiet --show-filenames-in-every-violation-message=true src 2>&1 || true)
if grep -vP "^\s*$|$accepted" <<<"$found"; then
    echo "pydoclint reports the problems above"
    exit 1
fi
