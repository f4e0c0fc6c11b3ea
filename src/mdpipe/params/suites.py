"""The suites of params.yaml, which compare runs: zero-shot, steps to a bound, samplers and image quality.

Each section states with `problems` what does not fit the rest of params.yaml.
"""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mdpipe.params.data import Protocols, TextDataset, modality_of
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.errors import BrokenRules, not_in
from mdpipe.params.fields import Distinct, MappingOfNames, Name, Positive, RunName, RunNames
from mdpipe.params.registry import Config, KindConfig
from mdpipe.params.runs import EstimatorConfig
from mdpipe.params.sampling import (
    DiscreteTimeSamplerConfig,
    SamplerConfig,
    Temperature,
    unfit,
)

if TYPE_CHECKING:
    from mdpipe.params.root import Params

VALIDATION_RULE = "has no validations: write `validation: {{every: N}}` in runs.{}.train"

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of weights-inception-2015-12-05-6726825d.pth, the Inception v3 of the FID paper in PyTorch's format."""


class ZeroShot(EstimatorConfig):
    """Evaluate each run on each source; no run was trained on any of them."""

    runs: RunNames = {}
    """Text runs: keys of `runs`. A run with `seeds` is evaluated once per seed."""
    sources: Annotated[dict[Name, Protocols], MappingOfNames] = {}
    """Text sources, keys of `sources`, each with its protocols: packings by name, such as `{lambada: sedd}`, `{lambada:
    {sedd, mdlm_zero_shot}}`, or your own, `{lambada: {sliding: {stride: 64}}}`; null for `stream`. None of the
    runs may be trained on a source."""
    renamed: ClassVar[dict[str, str]] = EstimatorConfig.renamed | {"packing": "sources: {NAME: PACKING}"}

    def problems(self, params: "Params") -> BrokenRules:
        """Yield runs and sources that are not of text, and windows that a protocol or a training rules out."""
        texts = {name: data for name in params.all_runs if isinstance(data := params.dataset_of(name), TextDataset)}
        for name in self.runs:
            dataset = params.dataset_of(name)
            if name in texts:
                if (trained_on := texts[name].source) in self.sources:
                    rule = f"run {name!r} was trained on source {trained_on!r}: that would not be zero-shot"
                    yield ("sources", trained_on), rule
            elif dataset is not None or name not in params.all_runs:
                why = f"its dataset {params.all_runs[name].dataset!r} has images" if dataset else None
                yield ("runs", name), not_in("the text runs", name, texts, why)
        sources = [name for name, source in params.sources.items() if source.modality == "text"]
        for name, protocols in self.sources.items():
            for protocol, convention in protocols.items():
                stride = convention.stride or 0
                if short := [run for run in self.runs if run in texts and stride > texts[run].seq_len]:
                    rule = f"run {short[0]!r} has windows of seq_len = {texts[short[0]].seq_len}; lower it"
                    yield ("sources", name, protocol, "stride"), rule
            if name not in sources:
                why = "it has images" if name in params.sources else None
                yield ("sources", name), not_in("the text sources", name, sources, why)


class Comparison(Config):
    """Two runs on the same examples. The likelihood table shows their difference: the mean over seeds with a paired
    standard error over trainings and examples if both have `seeds`, and otherwise as of one training each.
    """

    run: str
    """A key of `runs`."""
    baseline: str
    """Another run, evaluated on the same split of the same dataset; if both have `seeds`, the same ones."""
    renamed: ClassVar[dict[str, str]] = {"against": "baseline"}

    def problems(self, params: "Params") -> BrokenRules:
        """Yield runs that do not exist, or were not trained with the same seeds or evaluated on the same examples."""
        runs = params.all_runs
        for key, name in (("run", self.run), ("baseline", self.baseline)):
            if name not in runs:
                yield (key,), not_in("runs", name, runs)
        if self.run == self.baseline:
            yield ("baseline",), "a run differs from itself by 0"
        pair = [runs[name] for name in (self.run, self.baseline) if name in runs]
        if all(run.seeds for run in pair) and len({frozenset(run.seeds or ()) for run in pair}) > 1:
            rule = f"the difference is taken seed by seed: {self.run!r} and {self.baseline!r} need the same `seeds`"
            yield ("baseline",), rule
        is_known = params.dataset_of(self.run) is not None and params.dataset_of(self.baseline) is not None
        if is_known and len({(run.dataset, run.evaluate.split) for run in pair}) > 1:
            rule = f"{self.run!r} and {self.baseline!r} are not evaluated on the same split of the same dataset"
            yield ("baseline",), rule


class StepsToBound(Config):
    """The steps and CPU seconds after which runs first reach a bound, by the validations of their trainings."""

    bits: Annotated[float, Field(gt=0, lt=math.inf)]
    """The bound to reach, in bits per token or dimension."""
    baseline: str
    """The run whose steps are 1, a key of `runs`. It is the first row of the table."""
    runs: Annotated[dict[str, str], Field(min_length=1)]
    """The other rows in their order: a key of `runs`, and the row above that it is a change of. All rows need the
    baseline's dataset, `seeds`, split of evaluation, and examples, times and masks of `train.validation`."""

    def problems(self, params: "Params") -> BrokenRules:
        """Yield rows that do not exist, or cannot be compared with the baseline."""
        baseline, above = params.runs.get(self.baseline), [self.baseline]
        if baseline is None:
            yield ("baseline",), not_in("runs", self.baseline, params.runs)
        elif baseline.train.validation is None:
            yield ("baseline",), VALIDATION_RULE.format(self.baseline)
        for name, changed in self.runs.items():
            where = ("runs", name)
            if changed not in above:
                yield where, not_in("the rows above", changed, above)
            if name not in params.runs:
                yield where, f"the row is {not_in('runs', name, params.runs)}"
            elif name == self.baseline:
                yield where, "the baseline is the first row already"
            elif (run := params.runs[name]).train.validation is None:
                yield where, VALIDATION_RULE.format(name)
            elif baseline is not None and run.measured_by != baseline.measured_by:
                rule = "need the same dataset, `seeds`, split of evaluation, and examples and samples of validation"
                yield where, f"{name!r} and {self.baseline!r} {rule}"
            above.append(name)


class ReferenceModel(Config):
    """The models that score the samples of a run."""

    reference_model: str
    """An autoregressive run on the same dataset, whose exact likelihood gives the generative perplexity."""
    dataset: str
    """The dataset of both; its held-out split is scored as well. DVC's templates need it here."""
    causal_lm: str | None = None
    """A second reference model for text, of the library `transformers`: a folder, or a name on the Hugging Face Hub
    such as openai-community/gpt2-large. It reads the decoded samples by its own tokenizer; null for none."""
    renamed: ClassVar[dict[str, str]] = {"judge": "reference_model"}


class SamplerSuite(Config):
    """Compare samplers: quality against the number of network calls, and against entropy over temperatures."""

    runs: dict[RunName, ReferenceModel] = {}
    """The runs to sample from, keys of `runs`, each with its reference model. Of a run with `seeds`, the name means the
    training with the first seed, and NAME-seedN another one."""
    samplers: list[SamplerConfig] = []
    """The samplers, at most one of each kind."""
    steps: Annotated[list[Positive], Distinct] = [8, 16, 32, 64]
    """Numbers of steps at which each sampler with a time grid is run; the samplers' own are not used."""
    temperatures: Annotated[list[Temperature], Distinct] = [1.0]
    """Temperatures at which each sampler is run with the largest number of steps, or without a time grid. The smaller
    numbers of steps have temperature 1, which must be in the list."""
    count: Annotated[int, Field(ge=2)] = 32
    """Samples per sampler, number of steps and temperature."""

    def broken_rules(self) -> BrokenRules:
        """Yield temperatures without 1."""
        if 1 not in self.temperatures:
            yield ("temperatures",), "must include 1, at which samples have the distribution of the model"

    def problems(self, params: "Params") -> BrokenRules:
        """Yield runs and reference models that do not exist or fit each other, and rows with the same name."""
        runs = params.all_runs
        for name, scored in self.runs.items():
            if name not in runs:
                yield ("runs", name), not_in("runs", name, runs)
            elif (data := params.dataset_of(name)) is not None:
                dataset, reference = runs[name].dataset, scored.reference_model
                causal = [key for key, run in runs.items() if run.objective.is_causal and run.dataset == dataset]
                if reference not in causal and (reference not in runs or params.dataset_of(reference) is not None):
                    rule = not_in(f"the autoregressive runs on {dataset!r}", reference, causal)
                    yield ("runs", name, "reference_model"), rule
                if scored.causal_lm is not None and modality_of(data) != "text":
                    yield ("runs", name, "causal_lm"), f"scores text, and run {name!r} is of images"
                if scored.dataset != dataset:
                    yield ("runs", name, "dataset"), f"run {name!r} is on {dataset!r}"
        kinds = [sampler.kind for sampler in self.samplers]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                rule = "a sampler's rows are known by its kind and steps: compare one of each kind"
                yield ("samplers", index, "kind"), rule
        if not self.steps and any(isinstance(sampler, DiscreteTimeSamplerConfig) for sampler in self.samplers):
            yield ("steps",), "samplers with a time grid need at least one number of steps"

    def temperatures_for(self, sampler: SamplerConfig) -> list[float]:
        """Return the temperatures of one of `samplers_for`."""
        is_full = not isinstance(sampler, DiscreteTimeSamplerConfig) or sampler.steps == max(self.steps)
        return self.temperatures if is_full else [1.0]

    def samplers_for(self, objective: ObjectiveConfig) -> list[SamplerConfig]:
        """Return the samplers that a run of the objective is sampled by, those with a grid at every number of steps."""
        return [
            expanded
            for sampler in self.samplers
            if unfit(sampler, objective) is None
            for expanded in (
                [sampler.model_copy(update={"steps": steps}) for steps in self.steps]
                if isinstance(sampler, DiscreteTimeSamplerConfig)
                else [sampler]
            )
        ]


class FeatureNetworkConfig(KindConfig):
    """The network whose features FID, precision and recall are computed from."""

    dataset: str
    """The images: a key of `datasets`. The features of all its splits are computed once."""
    max_images: Annotated[int, Field(ge=8)] = 50_000
    """The largest number of images of a split, evenly spaced, whose features are used."""


class CNNFeaturesConfig(FeatureNetworkConfig):
    """A small convolutional classifier, trained on the training split: of classes, or of rotations without labels."""

    kind: Literal["cnn"] = "cnn"
    hidden_size: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    """Number of features, and of channels of the last convolutions."""
    steps: Positive = 300
    """Number of optimizer steps."""
    batch_size: Positive = 64
    """Images per step; every image is in four rotations if those are predicted."""
    learning_rate: Annotated[float, Field(gt=0, lt=math.inf)] = 2e-3
    """Peak learning rate of AdamW; it decreases to 0 with a cosine."""


class InceptionFeaturesConfig(FeatureNetworkConfig):
    """Inception v3 as in the FID paper, for numbers that compare with published ones."""

    kind: Literal["inception"] = "inception"
    path: str
    """The file of the weights, .pth or .safetensors, with the names of torch-fidelity's file."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = INCEPTION_SHA256
    """The SHA-256 of the file, which must match: it is what the features depend on."""


class MeasuredRun(Config):
    """A run whose samples are compared with real images."""

    features: str
    """The feature network, a key of `image_quality.features`."""
    dataset: str
    """The dataset of the run and of the feature network. DVC's templates need it here."""
    count: Annotated[int, Field(ge=8)] = 10_000
    """Number of samples, drawn by the run's own sampler. FID depends on it: compare only equal numbers."""
    batch_size: Positive = 128
    """Samples per batch."""
    samplers: dict[Name, SamplerConfig] = {}
    """Further samplers of the same model, by name, whose samples are measured as well, as many of each."""

    def broken_rules(self) -> BrokenRules:
        """Yield names of samplers that other images have."""
        for name in self.samplers.keys() & {"samples", "training", "held_out", "noise"}:
            yield ("samplers", name), "the name is kept for other images; choose another one"


class ImageQuality(Config):
    """Measure samples of images: FID, precision and recall, Inception score, nearest neighbors, class accuracy."""

    features: dict[Name, FeatureNetworkConfig] = {}
    """Feature networks, by name (stage `fit_features`)."""
    runs: dict[RunName, MeasuredRun] = {}
    """The runs of images to measure, keys of `runs` (stage `measure_images`). A run with `seeds` is measured once per
    seed."""

    def problems(self, params: "Params") -> BrokenRules:
        """Yield datasets and runs that are not of images, and features and samplers that do not fit a run."""
        datasets = [name for name, dataset in params.datasets.items() if modality_of(dataset) == "image"]
        for name, network in self.features.items():
            if network.dataset not in datasets:
                why = "it has text" if network.dataset in params.datasets else None
                yield ("features", name, "dataset"), not_in("the datasets of images", network.dataset, datasets, why)
        runs = {name: run for name, run in params.all_runs.items() if run.dataset in datasets}
        for name, measured in self.runs.items():
            where = ("runs", name)
            if name not in runs:
                why = None if params.dataset_of(name) is None else "its dataset has text"
                yield where, not_in("the runs of images", name, runs, why)
                continue
            dataset, objective = runs[name].dataset, runs[name].objective
            if measured.dataset != dataset:
                yield (*where, "dataset"), f"run {name!r} is on {dataset!r}"
            fitting = [key for key, network in self.features.items() if network.dataset == dataset]
            if measured.features not in fitting:
                rule = not_in(f"the feature networks for {dataset!r}", measured.features, fitting)
                yield (*where, "features"), rule
            for key, sampler in measured.samplers.items():
                if misfit := unfit(sampler, objective):
                    yield (*where, "samplers", key, "kind"), misfit
