"""`mdpipe check`: what params.yaml asks for, in a few lines."""

from mdpipe.file_formats import plain_text_notes
from mdpipe.params import Params
from mdpipe.params.data import modality_of
from mdpipe.params.diffusion import ObjectiveConfig, ScheduledConfig
from mdpipe.params.networks import NetworkConfig
from mdpipe.params.sources import TextSource, files_by_split

NO_REPORT = "  no report, which needs a run: ask for stages by name, as `dvc repro encode@DATASET` does"


def describe(params: Params) -> str:
    """Return the stages that would run, by name, and a description of each run."""
    lines = [f"seed {params.seed}; the params ask for:"]
    for name, source in params.sources.items():
        lines.append(f"  download@{name}: {source.kind} from {source.path}")
        if isinstance(source, TextSource):
            names = (source.path, *files_by_split(source.pattern).values())
            lines += [f"    {note}" for note in plain_text_notes(names)]
    for name, dataset in params.datasets.items():
        lines.append(f"  fit_tokenizer@{name}, encode@{name}: {dataset.tokenizer.kind} of {dataset.source}")
    for name, (_, *replicates) in params.replicates().items():
        run = params.runs[name]
        network, train = run.network, run.train
        seeds = f"; {len(replicates) + 1} trainings, with seeds {', '.join(map(str, run.seeds))}" if run.seeds else ""
        lines.append(
            f"  train@{name}, sample@{name}, evaluate@{name}: {run.objective.kind}{_schedule(run.objective)}, a"
            f" {network.kind}{_size(network)}, {train.steps} steps of {train.batch_size} examples of the"
            f" {modality_of(params.datasets[run.dataset])} dataset {run.dataset}{seeds}"
        )
        lines += [
            f"  train@{other}, sample@{other}, evaluate@{other}: the same with seed {params.seed_of(other)}"
            for other in replicates
        ]
    for run_name in params.zero_shot.runs:
        lines += [
            f"  zero_shot@{run_name}-{source}: protocol {', '.join(protocols)}"
            for source, protocols in params.zero_shot.sources.items()
        ]
    temperatures = ", ".join(f"{temperature:g}" for temperature in params.samplers.temperatures)
    for run_name, scored in params.samplers.runs.items():
        models = " and ".join(filter(None, (scored.reference_model, scored.causal_lm)))
        lines.append(f"  compare_samplers@{run_name}: scored by {models}, temperature {temperatures}")
    for name, features in params.image_quality.features.items():
        lines.append(f"  fit_features@{name}: {features.kind} for the images of {features.dataset}")
    for run_name, measured in params.image_quality.runs.items():
        lines.append(f"  measure_images@{run_name}: {measured.count} samples, features of {measured.features}")
    return "\n".join([*lines, "  report" if params.runs else NO_REPORT])


def _schedule(objective: ObjectiveConfig) -> str:
    return f" with the {objective.schedule.kind} schedule" if isinstance(objective, ScheduledConfig) else ""


def _size(network: NetworkConfig) -> str:
    """Return the width of a network in words, or "" for a custom network without `hidden_size`."""
    width = getattr(network, "hidden_size", None)
    return "" if width is None else f" of hidden size {width}"
