# One rule a stage. All that belongs to a stage goes through values that are taken at once (never an f-string in
# `shell`, a lambda or a `run` body, which would see the last stage of the loop).
import sys

sys.path.insert(0, workflow.basedir)

from dvc.repo import Repo

from mdpipe.params import ParamsError, load_params
from workflow.engine import announce_engine, become_the_engine, mend_lock_file, request_file, request_stale_stages
from workflow.graph import inputs_of, is_folder, read_stages
from workflow.sort_lock import sort_lock

try:
    load_params()
except ParamsError as error:
    raise WorkflowError(str(error)) from None

announce_engine()
repo = Repo(workflow.basedir)
stages = read_stages(repo)

# A job's process reads this file too: only the main one may ask DVC, and only while no stage runs.
if workflow.is_main_process:
    try:
        become_the_engine()
    except BlockingIOError as error:
        raise WorkflowError(str(error)) from None
    mend_lock_file()
    request_stale_stages(repo, stages)

    onsuccess:
        sort_lock()

    onerror:
        sort_lock()


for stage in stages:

    rule:
        name:
            stage.name
        message:
            stage.description
        input:
            request=str(request_file(stage.name)),
            dependencies=inputs_of(stage, stages),
        output:
            [report(directory(path) if is_folder(path) else path, category=stage.category) for path in stage.outputs],
        log:
            f"logs/{stage.name}.log",
        benchmark:
            f"benchmarks/{stage.name}.tsv"
        threads: stage.threads
        resources:
            mem_mb=stage.mem_mb,
            runtime=stage.runtime,
        params:
            stage=stage.name,
        shell:
            "python workflow/job.py {params.stage} > {log} 2>&1"
