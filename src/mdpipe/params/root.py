"""The whole of params.yaml, with the rules that span its sections."""

import math
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Annotated

from mdpipe.file_formats import ending, refusal
from mdpipe.params.claims import Claims
from mdpipe.params.data import AnyDataset, ImageDataset, LastCharacters, Splits, TextDataset, Windows, modality_of
from mdpipe.params.errors import Keys, not_in
from mdpipe.params.images import ImageQuality
from mdpipe.params.kinds import MAX_NAME_LENGTH, Config, Distinct, Name, RunName, Seed
from mdpipe.params.runs import Comparison, Run, StepsToBound, ZeroShot
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerSuite, compatible_samplers, is_compatible
from mdpipe.params.sources import AnySource, HuggingFaceSource, files_by_split

BrokenRules = Iterator[tuple[Keys, str]]
VALIDATION_RULE = "has no validations: write `validation: {{every: N}}` in runs.{}.train"


class Params(Config):
    """Sources, datasets, runs, and the suites that compare them."""

    seed: Seed = 0
    """Key of all randomness: splits, initial weights, batches, masks, samples. A run may have its own for training and
    samples."""
    sources: dict[Name, AnySource]
    """Raw text or images, by name (stage `download`)."""
    datasets: dict[Name, AnyDataset]
    """Sources with their splits and tokenizers, by name (stages `tokenizer`, `encode`)."""
    runs: dict[RunName, Run]
    """Models: data, objective, network, training, samples and evaluation (stages `train`, `sample`, `evaluate`)."""
    comparisons: Annotated[list[Comparison], Distinct] = []
    """Pairs of runs. The likelihood table shows their difference on the same examples (stage `report`)."""
    zero_shot: ZeroShot = ZeroShot()
    """Which text runs are measured on which other sources (stage `zero_shot`)."""
    samplers: SamplerSuite = SamplerSuite()
    """Which samplers are compared, and on which runs (stage `samplers`)."""
    image_quality: ImageQuality = ImageQuality()
    """Feature networks, and the runs of images whose samples are measured with them (stages `fit_features`,
    `measure_images`)."""
    claims: Claims = {}
    """Claims to test with the results, by name (stage `report`)."""
    steps_to_bound: StepsToBound | None = None
    """Which runs are compared by their steps to a bound (stage `report`); null for none."""

    @property
    def md5(self) -> str:
        """The hash of all settings, by which a measurement knows what it is of."""
        return md5(self.model_dump_json().encode()).hexdigest()

    def with_replicates(self) -> "Params":
        """Return the params with a run for each seed; those that have them already are returned unchanged."""
        named = self.replicates()
        runs = {other: None for name in self.zero_shot.runs for other in named.get(name, [name])}
        measured = {other: run for name, run in self.image_quality.runs.items() for other in named.get(name, [name])}
        return self.model_copy(
            update={
                "runs": self._all_runs,
                "zero_shot": self.zero_shot.model_copy(update={"runs": runs}),
                "image_quality": self.image_quality.model_copy(update={"runs": measured}),
            }
        )

    def replicates(self) -> dict[str, list[str]]:
        """Return the names of the runs that each run of params.yaml stands for, one per seed, its own name first."""
        made = {name: list(run.replicates(name, self.seed)) for name, run in self.runs.items()}
        further = {other for names in made.values() for other in names[1:]}
        return {name: names for name, names in made.items() if name not in further}

    def seed_of(self, run: str) -> int:
        """Return the seed of a run's training and samples."""
        seed = self._all_runs[run].seed
        return self.seed if seed is None else seed

    @property
    def _all_runs(self) -> dict[str, Run]:
        """The runs of all seeds, by name."""
        return {
            replicate: settings
            for name, run in self.runs.items()
            for replicate, settings in run.replicates(name, self.seed).items()
        }

    def broken_rules(self) -> BrokenRules:
        """Yield names that do not exist, and sections that do not fit each other."""
        yield from self._source_problems()
        yield from self._dataset_problems()
        yield from self._seed_problems()
        yield from self._run_problems()
        yield from self._comparison_problems()
        yield from self._steps_problems()
        yield from self._zero_shot_problems()
        yield from self._sampler_problems()
        yield from self._image_quality_problems()
        for name, claim in self.claims.items():
            yield from ((("claims", name, "measure", *keys), rule) for keys, rule in claim.measure.problems(self))

    def _has_dataset(self, run: str) -> bool:
        """Return True if the run and its dataset exist; further problems of one that does not are not reported."""
        return run in self._all_runs and self._all_runs[run].dataset in self.datasets

    def _modality_of_run(self, run: str) -> str | None:
        return modality_of(self.datasets[self._all_runs[run].dataset]) if self._has_dataset(run) else None

    def _source_problems(self) -> BrokenRules:
        """Yield files that the kind of a source does not read, by their names, and folders that DVC does not watch."""
        for name, source in self.sources.items():
            where, path = ("sources", name), Path(source.path)
            if isinstance(source, HuggingFaceSource):
                folder = Path(source.name)
                if folder.is_dir() and not folder.resolve().is_relative_to(path.resolve()):
                    rule = f"`name` is a folder here, and DVC watches only `path`: set it to {source.name!r}, too"
                    yield (*where, "path"), rule
            if not path.is_dir() and (why := refusal(source.kind, ending(source.path))):
                yield (*where, "path"), why
            if not path.is_file():
                for split, glob in files_by_split(getattr(source, "pattern", "")).items():
                    if why := refusal(source.kind, ending(glob)):
                        yield (*where, "pattern", *([] if split is None else [split])), why

    def _dataset_problems(self) -> BrokenRules:
        for name, dataset in self.datasets.items():
            where, modality = ("datasets", name), modality_of(dataset)
            if dataset.source not in self.sources:
                yield (*where, "source"), not_in("sources", dataset.source, self.sources)
            elif (found := self.sources[dataset.source].modality) != modality:
                yield (*where, "tokenizer"), f"source {dataset.source!r} has {found}s, not {modality}s"
            for key in Splits.model_fields if modality == "image" else ():
                if isinstance(getattr(dataset.splits, key), LastCharacters | Windows):
                    yield (*where, "splits", key), "images have no characters and no windows"

    def _seed_problems(self) -> BrokenRules:
        """Yield names of runs that are taken by the replicates of others, or whose replicates have too long names."""
        for name, run in self.runs.items():
            entry, suffix, _ = name.partition("-seed")
            if suffix and (entry not in self.runs or self.runs[entry].replicates(entry, self.seed).get(name) != run):
                rule = f"the name is kept for another training of run {entry!r}: write `seeds: [...]` in runs.{entry}"
                yield ("runs", name), rule
            longest = max(run.replicates(name, self.seed), key=len)
            if len(longest) > MAX_NAME_LENGTH:
                rule = f"makes the name {longest!r}, and a name has at most {MAX_NAME_LENGTH} characters"
                yield ("runs", name, "seeds"), rule

    def _run_problems(self) -> BrokenRules:
        for name, run in self.runs.items():
            at_dataset = ("runs", name, "dataset")
            if run.dataset not in self.datasets:
                yield at_dataset, not_in("datasets", run.dataset, self.datasets)
                continue
            dataset, network = self.datasets[run.dataset], run.network
            if not network.takes_text and modality_of(dataset) == "text":
                images = sorted(key for key, other in self.datasets.items() if modality_of(other) == "image")
                rule = f"a {network.kind} needs images and {run.dataset!r} is text; datasets of images:"
                yield at_dataset, f"{rule} {', '.join(images) or 'none is defined'}"
            patch = network.patch_size
            if isinstance(dataset, ImageDataset) and dataset.image_size % patch:
                rule = f"a {network.kind} takes patches of {patch} x {patch} pixels, and {run.dataset!r} has images"
                yield at_dataset, f"{rule} of {dataset.image_size} x {dataset.image_size}"
            source = self.sources.get(dataset.source)
            if run.class_cond is not None and source is not None and not source.has_classes:
                yield ("runs", name, "class_cond"), f"source {dataset.source!r} has no classes; set class_cond to null"

    def _comparison_problems(self) -> BrokenRules:
        runs = self._all_runs
        for index, pair in enumerate(self.comparisons):
            at_run, at_baseline = ("comparisons", index, "run"), ("comparisons", index, "baseline")
            for where, name in ((at_run, pair.run), (at_baseline, pair.baseline)):
                if name not in runs:
                    yield where, not_in("runs", name, runs)
            if pair.run == pair.baseline:
                yield at_baseline, "a run differs from itself by 0"
            seeds = [set(runs[name].seeds or ()) for name in (pair.run, pair.baseline) if name in runs]
            if all(seeds) and len({*map(frozenset, seeds)}) > 1:
                rule = f"the difference is taken seed by seed: {pair.run!r} and {pair.baseline!r} need the same `seeds`"
                yield at_baseline, rule
            if self._has_dataset(pair.run) and self._has_dataset(pair.baseline):
                first, second = runs[pair.run], runs[pair.baseline]
                if (first.dataset, first.evaluate.split) != (second.dataset, second.evaluate.split):
                    rule = f"{pair.run!r} and {pair.baseline!r} are not evaluated on the same split of the same dataset"
                    yield at_baseline, rule

    def _steps_problems(self) -> BrokenRules:
        """Yield rows of `steps_to_bound` that do not exist, or cannot be compared with the baseline."""
        if (table := self.steps_to_bound) is None:
            return
        baseline, above = self.runs.get(table.baseline), [table.baseline]
        if baseline is None:
            yield ("steps_to_bound", "baseline"), not_in("runs", table.baseline, self.runs)
        elif baseline.train.validation is None:
            yield ("steps_to_bound", "baseline"), VALIDATION_RULE.format(table.baseline)
        for name, changed in table.runs.items():
            where = ("steps_to_bound", "runs", name)
            if changed not in above:
                yield where, not_in("the rows above", changed, above)
            if name not in self.runs:
                yield where, f"the row is {not_in('runs', name, self.runs)}"
            elif name == table.baseline:
                yield where, "the baseline is the first row already"
            elif (run := self.runs[name]).train.validation is None:
                yield where, VALIDATION_RULE.format(name)
            elif baseline is not None and run.measured_by != baseline.measured_by:
                rule = "need the same dataset, `seeds`, split of evaluation, and examples and draws of validation"
                yield where, f"{name!r} and {table.baseline!r} {rule}"
            above.append(name)

    def _zero_shot_problems(self) -> BrokenRules:
        runs = self._all_runs
        text_sources = [key for key, source in self.sources.items() if source.modality == "text"]
        text_runs = [key for key in runs if self._modality_of_run(key) == "text"]
        for name in self.zero_shot.runs:
            if name in runs and not self._has_dataset(name):
                continue
            if name not in text_runs:
                why = f"its dataset {runs[name].dataset!r} has images" if name in runs else None
                yield ("zero_shot", "runs", name), not_in("the text runs", name, text_runs, why)
                continue
            trained_on = self.datasets[runs[name].dataset].source
            if trained_on in self.zero_shot.sources:
                rule = f"run {name!r} was trained on source {trained_on!r}: that would not be zero-shot"
                yield ("zero_shot", "sources", trained_on), rule
        datasets = {name: self.datasets[runs[name].dataset] for name in text_runs}
        lengths = {name: dataset.seq_len for name, dataset in datasets.items() if isinstance(dataset, TextDataset)}
        for name, protocols in self.zero_shot.sources.items():
            for protocol, convention in protocols.items():
                where = ("zero_shot", "sources", name, protocol, "stride")
                too_short = [
                    run for run in self.zero_shot.runs if (convention.stride or 0) > lengths.get(run, math.inf)
                ]
                if too_short:
                    yield where, f"run {too_short[0]!r} has windows of seq_len = {lengths[too_short[0]]}; lower it"
            if name not in text_sources:
                why = "it has images" if name in self.sources else None
                yield ("zero_shot", "sources", name), not_in("the text sources", name, text_sources, why)

    def _sampler_problems(self) -> BrokenRules:
        runs = self._all_runs
        for name, scored in self.samplers.runs.items():
            where = ("samplers", "runs", name)
            if name not in runs:
                yield where, not_in("runs", name, runs)
                continue
            if not self._has_dataset(name):
                continue
            dataset, reference = runs[name].dataset, scored.reference_model
            causal = [key for key, run in runs.items() if type(run.objective).is_causal and run.dataset == dataset]
            if reference not in causal and (reference not in runs or self._has_dataset(reference)):
                rule = not_in(f"the autoregressive runs on {dataset!r}", reference, causal)
                yield (*where, "reference_model"), rule
            if scored.causal_lm is not None and self._modality_of_run(name) != "text":
                yield (*where, "causal_lm"), f"scores text, and run {name!r} is of images"
            if scored.dataset != dataset:
                yield (*where, "dataset"), f"run {name!r} is on {dataset!r}"
        samplers = self.samplers.samplers
        kinds = [sampler.kind for sampler in samplers]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                rule = "a sampler's rows are known by its kind and steps: compare one of each kind"
                yield ("samplers", "samplers", index, "kind"), rule
        if not self.samplers.steps and any(isinstance(sampler, DiscreteTimeSamplerConfig) for sampler in samplers):
            yield ("samplers", "steps"), "samplers with a time grid need at least one number of steps"

    def _image_quality_problems(self) -> BrokenRules:
        suite, runs = self.image_quality, self._all_runs
        images = [key for key, dataset in self.datasets.items() if modality_of(dataset) == "image"]
        image_runs = [key for key in runs if self._modality_of_run(key) == "image"]
        for name, network in suite.features.items():
            if network.dataset not in images:
                why = "it has text" if network.dataset in self.datasets else None
                where = ("image_quality", "features", name, "dataset")
                yield where, not_in("the datasets of images", network.dataset, images, why)
        for name, measured in suite.runs.items():
            at_run = ("image_quality", "runs", name)
            if name not in image_runs:
                why = "its dataset has text" if self._has_dataset(name) else None
                yield at_run, not_in("the runs of images", name, image_runs, why)
                continue
            dataset = runs[name].dataset
            if measured.dataset != dataset:
                yield (*at_run, "dataset"), f"run {name!r} is on {dataset!r}"
            fitting = [key for key, network in suite.features.items() if network.dataset == dataset]
            if measured.features not in fitting:
                rule = not_in(f"the feature networks for {dataset!r}", measured.features, fitting)
                yield (*at_run, "features"), rule
            objective = type(runs[name].objective)
            for key, sampler in measured.samplers.items():
                if not is_compatible(sampler.kind, objective):
                    allowed = ", ".join(compatible_samplers(objective))
                    rule = f"does not fit a run of {runs[name].objective.kind}; allowed: {allowed}"
                    yield (*at_run, "samplers", key, "kind"), rule
