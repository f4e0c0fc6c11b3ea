"""`mdpipe check`: what params.yaml asks for, in a few lines."""

from mdpipe.params import Params
from mdpipe.params.base import Section
from mdpipe.params.data import modality_of
from mdpipe.params.diffusion import Scheduled


def describe(params: Params) -> str:
    """The stages that would run, by name, and what each run is."""
    lines = [f"seed {params.seed}; the params are valid. They ask for:"]
    lines += [f"  download@{name}: {source.kind} from {source.path}" for name, source in params.sources.items()]
    for name, dataset in params.datasets.items():
        lines.append(f"  tokenizer@{name}, encode@{name}: {dataset.tokenizer.kind} of {dataset.source}")
    for name, run in params.runs.items():
        network, train = run.network, run.train
        lines.append(
            f"  train@{name}, sample@{name}, evaluate@{name}: {run.objective}{_schedule(run.diffusion)}, a"
            f" {network.kind} of width {network.width}, {train.steps} steps of {train.batch_size} examples of the"
            f" {modality_of(params.datasets[run.dataset])} dataset {run.dataset}"
        )
    for run_name in params.zero_shot.runs:
        lines += [f"  zero_shot@{run_name}-{source}" for source in params.zero_shot.sources]
    lines += [f"  samplers@{run}: judged by {judged.judge}" for run, judged in params.samplers.runs.items()]
    return "\n".join([*lines, "  report"])


def _schedule(settings: Section) -> str:
    return f" with the {settings.schedule.kind} schedule" if isinstance(settings, Scheduled) else ""
