"""The whole of params.yaml, with the rules that span its sections."""

from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mdpipe.file_formats import ending, refusal
from mdpipe.params.data import AnyDataset, ImageDataset, LastCharacters, Splits, Windows, modality_of
from mdpipe.params.errors import Keys, not_in
from mdpipe.params.images import ImageQuality
from mdpipe.params.kinds import Config, Distinct, Name
from mdpipe.params.runs import Comparison, Run, ZeroShot
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerSuite
from mdpipe.params.sources import AnySource, HuggingFaceSource, files_by_split

BrokenRules = Iterator[tuple[Keys, str]]


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
    image_quality: ImageQuality = ImageQuality()
    """Feature networks, and the runs of images whose samples are measured with them (stages `fit_features`,
    `measure_images`)."""

    @property
    def md5(self) -> str:
        """The hash of all settings, by which a measurement knows what it is of."""
        return md5(self.model_dump_json().encode()).hexdigest()

    def broken_rules(self) -> BrokenRules:
        """Yield names that do not exist, and sections that do not fit each other."""
        yield from self._source_problems()
        yield from self._dataset_problems()
        yield from self._run_problems()
        yield from self._comparison_problems()
        yield from self._zero_shot_problems()
        yield from self._sampler_problems()
        yield from self._image_quality_problems()

    def _has_dataset(self, run: str) -> bool:
        """Return True if the run and its dataset exist; further problems of one that does not are not reported."""
        return run in self.runs and self.runs[run].dataset in self.datasets

    def _modality_of_run(self, run: str) -> str | None:
        return modality_of(self.datasets[self.runs[run].dataset]) if self._has_dataset(run) else None

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
            if isinstance(dataset, ImageDataset) and dataset.size % patch:
                rule = f"a {network.kind} takes patches of {patch} x {patch} pixels, and {run.dataset!r} has images"
                yield at_dataset, f"{rule} of {dataset.size} x {dataset.size}"
            source = self.sources.get(dataset.source)
            if run.class_cond is not None and source is not None and not source.has_classes:
                yield ("runs", name, "class_cond"), f"source {dataset.source!r} has no classes; set class_cond to null"

    def _comparison_problems(self) -> BrokenRules:
        for index, pair in enumerate(self.comparisons):
            at_run, at_baseline = ("comparisons", index, "run"), ("comparisons", index, "baseline")
            for where, name in ((at_run, pair.run), (at_baseline, pair.baseline)):
                if name not in self.runs:
                    yield where, not_in("runs", name, self.runs)
            if pair.run == pair.baseline:
                yield at_baseline, "a run differs from itself by 0"
            if self._has_dataset(pair.run) and self._has_dataset(pair.baseline):
                first, second = self.runs[pair.run], self.runs[pair.baseline]
                if (first.dataset, first.evaluate.split) != (second.dataset, second.evaluate.split):
                    rule = f"{pair.run!r} and {pair.baseline!r} are not evaluated on the same split of the same dataset"
                    yield at_baseline, rule

    def _zero_shot_problems(self) -> BrokenRules:
        text_sources = [key for key, source in self.sources.items() if source.modality == "text"]
        text_runs = [key for key in self.runs if self._modality_of_run(key) == "text"]
        for name in self.zero_shot.runs:
            if name in self.runs and not self._has_dataset(name):
                continue
            if name not in text_runs:
                why = f"its dataset {self.runs[name].dataset!r} has images" if name in self.runs else None
                yield ("zero_shot", "runs", name), not_in("the text runs", name, text_runs, why)
                continue
            trained_on = self.datasets[self.runs[name].dataset].source
            if trained_on in self.zero_shot.sources:
                rule = f"run {name!r} was trained on source {trained_on!r}: that would not be zero-shot"
                yield ("zero_shot", "sources", trained_on), rule
        for name in self.zero_shot.sources:
            if name not in text_sources:
                why = "it has images" if name in self.sources else None
                yield ("zero_shot", "sources", name), not_in("the text sources", name, text_sources, why)

    def _sampler_problems(self) -> BrokenRules:
        for name, scored in self.samplers.runs.items():
            where = ("samplers", "runs", name)
            if name not in self.runs:
                yield where, not_in("runs", name, self.runs)
                continue
            if not self._has_dataset(name):
                continue
            dataset, reference = self.runs[name].dataset, scored.reference_model
            causal = [key for key, run in self.runs.items() if type(run.objective).is_causal and run.dataset == dataset]
            if reference not in causal and (reference not in self.runs or self._has_dataset(reference)):
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
        suite = self.image_quality
        images = [key for key, dataset in self.datasets.items() if modality_of(dataset) == "image"]
        image_runs = [key for key in self.runs if self._modality_of_run(key) == "image"]
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
            dataset = self.runs[name].dataset
            if measured.dataset != dataset:
                yield (*at_run, "dataset"), f"run {name!r} is on {dataset!r}"
            fitting = [key for key, network in suite.features.items() if network.dataset == dataset]
            if measured.features not in fitting:
                rule = not_in(f"the feature networks for {dataset!r}", measured.features, fitting)
                yield (*at_run, "features"), rule
