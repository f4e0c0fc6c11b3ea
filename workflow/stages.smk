# One rule per stage. Everything specific to a stage is a value that is bound at once (never an f-string in `shell`, a
# lambda or a `run` body, which would see the last stage of the loop).
import os
import sys
from contextlib import nullcontext
from pathlib import Path

# The code of this repository, also where another clone is installed; jobs inherit it.
SOURCES = [workflow.basedir, f"{workflow.basedir}/src"]
sys.path[:0] = SOURCES
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*SOURCES, os.environ.get("PYTHONPATH")]))

from mdpipe.params import load_params
from workflow.engine import exit_with, open_repo, params_for_dvc, patch_snakemake, prepare, request_file
from workflow.graph import inputs_of, is_folder, read_stages
from workflow.leave_to_dvc import require_no_benchmark
from workflow.sort_lock import sort_lock

try:
    all_params = load_params()
    repo = open_repo(Path(workflow.basedir))
except ValueError as error:
    exit_with(error)

dry_run = workflow.output_settings.dryrun  # `workflow.dryrun` is not set yet.
# A job's process reads this file too: only the main one may write for DVC or ask it, and only while no stage runs.
with params_for_dvc(all_params, dry_run=dry_run) if workflow.is_main_process else nullcontext():
    stages = read_stages(repo, all_params)
patch_snakemake(stages)
planned = set()

if workflow.is_main_process:
    planned = prepare(repo, stages, all_params, dry_run=dry_run)

    onsuccess:
        sort_lock()

    onerror:
        sort_lock()


def report_output(path, stage):
    """Mark an output for `snakemake --report`: files to read, and of folders what dvc.yaml selects."""
    if path.endswith(".npy"):
        return path
    kind, _, name = stage.name.partition("@")
    entry = {
        "category": stage.category,
        "subcategory": kind,
        "labels": {"of": name or "all", "file": Path(path).name},
        "caption": "caption.rst",
    }
    if not is_folder(path):
        return report(path, **entry)
    if stage.shown:
        return report(directory(path), patterns=list(stage.shown), **entry)
    return directory(path)


# Modification times do not count: DVC compares contents, and the requests hold its answer. Outputs that will
# be remade are the exception, because Snakemake plans what depends on them by their times.
remade = {output for stage in stages if stage.name in planned for output in stage.outputs}

# Snakemake starts ready stages in the order of dvc.yaml, and runs in the order of params.yaml: list the longest first.
for position, stage in enumerate(stages):

    rule:
        name:
            stage.name
        input:
            request=str(request_file(stage.name)),
            dependencies=[path if path in remade else ancient(path) for path in inputs_of(stage, stages)],
        output:
            [report_output(path, stage) for path in stage.outputs],
        log:
            f"logs/{stage.name}.log",
        benchmark:
            f"benchmarks/{stage.name}.tsv"
        priority: len(stages) - position
        threads: stage.threads
        resources:
            mem_mb=stage.mem_mb,
            runtime=stage.runtime,
        params:
            stage=stage.name,
            gpus=stage.gpus,
            description=stage.description,
        message:
            stage.description
        shell:
            "python -m workflow.job {params.stage} {params.gpus} > {log} 2>&1"

    # A job's process knows no plan, and measures the stage that it runs.
    if workflow.is_main_process and stage.name not in planned:
        require_no_benchmark(workflow.get_rule(stage.name))
