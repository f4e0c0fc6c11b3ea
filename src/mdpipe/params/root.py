"""The whole of params.yaml, with the rules that span its sections."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from mdpipe.params.base import Name, Section
from mdpipe.params.data import SOURCE_MODALITY, AnyDataset, AnySource, modality_of
from mdpipe.params.runs import Run, UNet, ZeroShot


class Params(Section):
    """Sources, datasets, runs and the zero-shot suite."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """Key of all randomness: splits, initial weights, batches, masks, samples."""
    sources: dict[Name, AnySource]
    datasets: dict[Name, AnyDataset]
    runs: dict[Name, Run]
    zero_shot: ZeroShot

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        problems = [*self._dataset_problems(), *self._run_problems(), *self._zero_shot_problems()]
        if problems:
            raise ValidationError.from_exception_data("Params", problems)
        return self

    def _dataset_problems(self) -> list[InitErrorDetails]:
        found = []
        for name, dataset in self.datasets.items():
            where = ("datasets", name)
            if dataset.source not in self.sources:
                found.append(_no_such((*where, "source"), dataset.source, "sources", self.sources))
            elif SOURCE_MODALITY[self.sources[dataset.source].kind] != modality_of(dataset):
                kind = self.sources[dataset.source].kind
                rule = f"source {dataset.source!r} has {SOURCE_MODALITY[kind]}s, not {modality_of(dataset)}s"
                found.append(_problem((*where, "tokenizer"), dataset.tokenizer.kind, rule))
            if dataset.validation + dataset.test >= 1:
                rule = f"validation and test together leave nothing to train on (test is {dataset.test})"
                found.append(_problem((*where, "validation"), dataset.validation, rule))
        return found

    def _run_problems(self) -> list[InitErrorDetails]:
        found = []
        for name, run in self.runs.items():
            where = ("runs", name)
            if run.dataset not in self.datasets:
                found.append(_no_such((*where, "dataset"), run.dataset, "datasets", self.datasets))
            elif isinstance(run.network, UNet) and modality_of(self.datasets[run.dataset]) == "text":
                images = [key for key, dataset in self.datasets.items() if modality_of(dataset) == "image"]
                rule = f"a unet needs pictures and {run.dataset!r} is text; datasets of pictures: {_listed(images)}"
                found.append(_problem((*where, "dataset"), run.dataset, rule))
        return found

    def _zero_shot_problems(self) -> list[InitErrorDetails]:
        found = []
        text_sources = [key for key, source in self.sources.items() if SOURCE_MODALITY[source.kind] == "text"]
        text_runs = [
            key
            for key, run in self.runs.items()
            if run.dataset in self.datasets and modality_of(self.datasets[run.dataset]) == "text"
        ]
        for index, name in enumerate(self.zero_shot.runs):
            if name not in text_runs:
                found.append(_no_such(("zero_shot", "runs", index), name, "the text runs", text_runs))
                continue
            trained_on = self.datasets[self.runs[name].dataset].source
            if trained_on in self.zero_shot.sources:
                rule = f"run {name!r} was trained on source {trained_on!r}: that would not be zero-shot"
                found.append(_problem(("zero_shot", "sources"), self.zero_shot.sources, rule))
        for index, name in enumerate(self.zero_shot.sources):
            if name not in text_sources:
                found.append(_no_such(("zero_shot", "sources", index), name, "the text sources", text_sources))
        return found


def _problem(where: tuple[int | str, ...], value: Any, rule: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("rule", "{rule}", {"rule": rule}), loc=where, input=value)


def _no_such(where: tuple[int | str, ...], value: str, table: str, allowed: Any) -> InitErrorDetails:
    return _problem(where, value, f"not one of {table}; allowed: {_listed(allowed)}")


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none is defined"
