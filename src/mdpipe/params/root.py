"""The whole of params.yaml, with the rules that span its sections."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails, ValidationError

from mdpipe.file_formats import ending, refusal
from mdpipe.params.base import Config, Distinct, Name
from mdpipe.params.data import AnyDataset, ImageDataset, LastCharacters, Splits, Windows, modality_of
from mdpipe.params.problems import listed, no_such, problem
from mdpipe.params.runs import Comparison, Run, ZeroShot
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerSuite
from mdpipe.params.sources import AnySource, HuggingFaceSource


class Params(Config):
    """Sources, datasets, runs, and the suites that compare them."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Key of all randomness: splits, initial weights, batches, masks, samples."""
    sources: dict[Name, AnySource]
    """Raw text or images, by name (stage `download`)."""
    datasets: dict[Name, AnyDataset]
    """Sources with their splits and tokenizers, by name (stages `tokenizer`, `encode`)."""
    runs: dict[Name, Run]
    """Models: data, objective, network, training, samples and evaluation (stages `train`, `sample`, `evaluate`)."""
    comparisons: Annotated[list[Comparison], Distinct] = []
    """Pairs of runs. The likelihood table shows their difference with its paired standard error (stage `report`)."""
    zero_shot: ZeroShot = ZeroShot()
    """Which text runs are measured on which other sources (stage `zero_shot`)."""
    samplers: SamplerSuite = SamplerSuite()
    """Which samplers are compared, and on which runs (stage `samplers`)."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        problems = [
            *self._source_problems(),
            *self._dataset_problems(),
            *self._run_problems(),
            *self._comparison_problems(),
            *self._zero_shot_problems(),
            *self._sampler_problems(),
        ]
        if problems:
            raise ValidationError.from_exception_data("Params", problems)
        return self

    def _has_dataset(self, run: str) -> bool:
        """Return True if the run and its dataset exist; what a missing one leads to is not reported."""
        return run in self.runs and self.runs[run].dataset in self.datasets

    def _source_problems(self) -> list[InitErrorDetails]:
        """Files that the kind of a source does not read, by their names, and folders that DVC would not watch."""
        found = []
        for name, source in self.sources.items():
            where, path = ("sources", name), Path(source.path)
            if (
                isinstance(source, HuggingFaceSource)
                and Path(source.name).is_dir()
                and not _is_within(source.name, path)
            ):
                rule = f"`name` is a folder here, and DVC watches only `path`: set it to {source.name!r}, too"
                found.append(problem((*where, "path"), source.path, rule))
            if not path.is_dir() and (why := refusal(source.kind, ending(source.path))):
                found.append(problem((*where, "path"), source.path, why))
            pattern = getattr(source, "pattern", "")
            globs = pattern if isinstance(pattern, dict) else {None: pattern}
            for split, glob in {} if path.is_file() else globs.items():
                if why := refusal(source.kind, ending(glob)):
                    place = (*where, "pattern") if split is None else (*where, "pattern", split)
                    found.append(problem(place, glob, why))
        return found

    def _dataset_problems(self) -> list[InitErrorDetails]:
        found = []
        for name, dataset in self.datasets.items():
            where = ("datasets", name)
            if dataset.source not in self.sources:
                found.append(no_such((*where, "source"), dataset.source, "sources", self.sources))
            elif (modality := self.sources[dataset.source].modality) != modality_of(dataset):
                rule = f"source {dataset.source!r} has {modality}s, not {modality_of(dataset)}s"
                found.append(problem((*where, "tokenizer"), dataset.tokenizer.kind, rule))
            if isinstance(dataset, ImageDataset):
                rule = "images have no characters and no windows"
                specs = [(key, getattr(dataset.splits, key)) for key in Splits.model_fields]
                of_text = [(key, spec) for key, spec in specs if isinstance(spec, LastCharacters | Windows)]
                found += [problem((*where, "splits", key), spec, rule) for key, spec in of_text]
        return found

    def _run_problems(self) -> list[InitErrorDetails]:
        found = []
        for name, run in self.runs.items():
            where = ("runs", name)
            if run.dataset not in self.datasets:
                found.append(no_such((*where, "dataset"), run.dataset, "datasets", self.datasets))
                continue
            dataset = self.datasets[run.dataset]
            if not run.network.takes_text and modality_of(dataset) == "text":
                images = [key for key, other in self.datasets.items() if modality_of(other) == "image"]
                rule = f"a {run.network.kind} needs images and {run.dataset!r} is text; datasets of images:"
                rule += f" {listed(images)}"
                found.append(problem((*where, "dataset"), run.dataset, rule))
            patch = run.network.patch_size
            if isinstance(dataset, ImageDataset) and dataset.size % patch:
                rule = f"a {run.network.kind} takes patches of {patch} x {patch} pixels, and {run.dataset!r} has images"
                found.append(problem((*where, "dataset"), run.dataset, f"{rule} of {dataset.size} x {dataset.size}"))
            source = self.sources.get(dataset.source)
            if run.class_cond is not None and source is not None and not source.has_classes:
                rule = f"source {dataset.source!r} has no classes; set class_cond to null"
                found.append(problem((*where, "class_cond"), run.class_cond, rule))
        return found

    def _comparison_problems(self) -> list[InitErrorDetails]:
        found = []
        for index, pair in enumerate(self.comparisons):
            for key, name in (("run", pair.run), ("baseline", pair.baseline)):
                if name not in self.runs:
                    found.append(no_such(("comparisons", index, key), name, "runs", self.runs))
            if pair.run == pair.baseline:
                found.append(
                    problem(("comparisons", index, "baseline"), pair.baseline, "a run differs from itself by 0")
                )
            if self._has_dataset(pair.run) and self._has_dataset(pair.baseline):
                first, second = self.runs[pair.run], self.runs[pair.baseline]
                if (first.dataset, first.evaluate.split) != (second.dataset, second.evaluate.split):
                    rule = f"{pair.run!r} and {pair.baseline!r} are not evaluated on the same split of the same dataset"
                    found.append(problem(("comparisons", index, "baseline"), pair.baseline, rule))
        return found

    def _zero_shot_problems(self) -> list[InitErrorDetails]:
        found = []
        text_sources = [key for key, source in self.sources.items() if source.modality == "text"]
        text_runs = [
            key
            for key in self.runs
            if self._has_dataset(key) and modality_of(self.datasets[self.runs[key].dataset]) == "text"
        ]
        for name in self.zero_shot.runs:
            if name in self.runs and not self._has_dataset(name):
                continue
            if name not in text_runs:
                where = ("zero_shot", "runs", name)
                rule = f"its dataset {self.runs[name].dataset!r} has pictures" if name in self.runs else None
                found.append(_not_among(where, name, "the text runs", text_runs, why=rule))
                continue
            trained_on = self.datasets[self.runs[name].dataset].source
            if trained_on in self.zero_shot.sources:
                rule = f"run {name!r} was trained on source {trained_on!r}: that would not be zero-shot"
                found.append(problem(("zero_shot", "sources", trained_on), trained_on, rule))
        for name in self.zero_shot.sources:
            if name not in text_sources:
                why = "it has pictures" if name in self.sources else None
                where = ("zero_shot", "sources", name)
                found.append(_not_among(where, name, "the text sources", text_sources, why=why))
        return found

    def _sampler_problems(self) -> list[InitErrorDetails]:
        found = []
        for name, scored in self.samplers.runs.items():
            where = ("samplers", "runs", name)
            if name not in self.runs:
                found.append(no_such(where, name, "runs", self.runs))
                continue
            if not self._has_dataset(name):
                continue
            dataset = self.runs[name].dataset
            causal = [key for key, run in self.runs.items() if type(run.objective).is_causal and run.dataset == dataset]
            reference = scored.reference_model
            if reference not in causal and (reference not in self.runs or self._has_dataset(reference)):
                found.append(
                    no_such((*where, "reference_model"), reference, f"the autoregressive runs on {dataset!r}", causal)
                )
            if scored.dataset != dataset:
                found.append(problem((*where, "dataset"), scored.dataset, f"run {name!r} is on {dataset!r}"))
        kinds = [sampler.kind for sampler in self.samplers.samplers]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                rule = "a sampler's rows are known by its kind and steps: compare one of each kind"
                found.append(problem(("samplers", "samplers", index, "kind"), kind, rule))
        if not self.samplers.steps and any(
            isinstance(sampler, DiscreteTimeSamplerConfig) for sampler in self.samplers.samplers
        ):
            rule = "samplers with a time grid need at least one number of steps"
            found.append(problem(("samplers", "steps"), self.samplers.steps, rule))
        return found


def _not_among(
    where: tuple[int | str, ...], name: str, table: str, allowed: list[str], why: str | None
) -> InitErrorDetails:
    """Return the problem that a name is in no table, or that what it names is of another sort, and `why`."""
    if why is None:
        return no_such(where, name, table, allowed)
    return problem(where, name, f"{why}; allowed are {table}: {listed(allowed)}")


def _is_within(folder: str, watched: Path) -> bool:
    return Path(folder).resolve().is_relative_to(watched.resolve())
