"""The catalog: every entry is valid in params.yaml, as `mdpipe datasets` prints it."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from mdpipe.commands.datasets import WIDTH, describe, params_entry
from mdpipe.params.catalog import find_entry, load_catalog
from mdpipe.params.data import Splits
from mdpipe.params.root import parse_params
from mdpipe.params.sources import CatalogSource

ROOT = Path(__file__).parents[2]
SMOKE = yaml.safe_load((ROOT / "workflow/presets/smoke.yaml").read_text())
EXPECTED = {
    "text8",
    "openwebtext",
    "openwebtext_chunks",
    "fineweb_edu_10bt",
    "fineweb_edu_100bt",
    "lm1b",
    "wikitext2",
    "wikitext103",
    "tiny_shakespeare",
    "lambada",
    "ptb",
    "ag_news",
    "pubmed_articles",
    "pubmed_abstracts",
    "arxiv_articles",
    "arxiv_abstracts",
    "cifar10",
    "imagenet64",
    "imagenet64_box",
    "imagenet64_copy",
    "imagenet64_classes",
    "mnist",
    "fashion_mnist",
}
SEDD_ZERO_SHOT = {"lambada", "wikitext2_train", "ptb_test", "wikitext103_test", "lm1b_test"}
MDLM_ZERO_SHOT = {
    "ptb_validation",
    "wikitext_validation",
    "lm1b_test",
    "lambada",
    "ag_news_test",
    "pubmed_articles_validation",
    "arxiv_articles_validation",
}
every_name = pytest.mark.parametrize("name", load_catalog())


def test_benchmark_datasets_of_the_papers_are_there():
    assert set(load_catalog()) >= EXPECTED | SEDD_ZERO_SHOT | MDLM_ZERO_SHOT


@pytest.mark.parametrize("name", sorted(SEDD_ZERO_SHOT | MDLM_ZERO_SHOT))
def test_a_zero_shot_corpus_is_one_split_and_no_dataset(name):
    """Since all that a source has is scored."""
    facts = find_entry(name)
    assert facts.dataset is None
    assert facts.source["kind"] == "url" or len(facts.splits) == 1


@every_name
def test_a_source_is_valid_and_of_its_modality(name):
    source = CatalogSource(kind="catalog", name=name, path="constraints.txt")
    assert source.modality == source.resolve().modality == find_entry(name).modality


@every_name
def test_facts_are_whole(name):
    facts = find_entry(name)
    assert all(
        text == " ".join(text.split()) for text in (facts.title, facts.license, facts.citation, facts.note or "-")
    )
    assert re.search(r", (19|20)\d\d$", facts.citation)
    assert re.match(r"https?://\S+$", facts.home)
    assert facts.counts is None or min(facts.counts.values()) > 0
    assert facts.files is None or facts.files == " ".join(facts.files.split())
    if facts.counts is not None and facts.splits:
        assert tuple(facts.counts) == facts.splits


@every_name
def test_splits_that_a_dataset_names_are_fetched(name):
    facts = find_entry(name)
    specs = [] if facts.dataset is None else [*Splits(**facts.dataset.get("splits", {})).resolve(facts.splits).values()]
    assert {spec for spec in specs if isinstance(spec, str)} <= set(facts.splits)


@every_name
def test_files_to_download_by_hand_are_named(name):
    facts = find_entry(name)
    fetched = facts.source["kind"] in ("huggingface", "url")
    assert (facts.files is None) == fetched
    printed = yaml.safe_load(params_entry(name))["sources"][name]
    assert printed["path"] == ("constraints.txt" if fetched else f"my/{name}")


def test_the_datasets_called_imagenet_64_differ():
    """By their published sizes, and by what their images are read from."""
    found = {name: find_entry(name) for name in ("imagenet64", "imagenet64_box", "imagenet64_copy")}
    assert {name: tuple((facts.counts or {}).values()) for name, facts in found.items()} == {
        "imagenet64": (1_281_149, 49_999),
        "imagenet64_box": (1_281_167, 50_000),
        "imagenet64_copy": (1_281_167, 50_000),
    }
    kinds = [facts.source["kind"] for facts in found.values()]
    assert kinds == ["image_tar", "npz_flat", "huggingface"]
    assert [CatalogSource(kind="catalog", name=name, path="my").has_classes for name in found] == [False, True, True]


@every_name
def test_the_printed_section_of_params_is_valid(name):
    printed = yaml.safe_load(params_entry(name))
    data = deepcopy(SMOKE)
    data["sources"] |= printed["sources"]
    data["datasets"] |= printed.get("datasets", {})
    if "datasets" not in printed:
        data["zero_shot"]["sources"][name] = None
    params = parse_params(data)
    assert name in params.sources
    assert (name in params.datasets) == (find_entry(name).dataset is not None)


def test_text8_has_the_settings_of_the_paper():
    facts = find_entry("text8")
    assert facts.counts == {"characters": 100_000_000}
    assert facts.dataset == {
        "packing": "text8",
        "seq_len": 256,
        "splits": {"validation": {"last_characters": 5_000_000}, "test": {"last_characters": 5_000_000}},
    }


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"no data set 'cifar1O' \(did you mean 'cifar10'\?\); it has: text8, openwebtext,"
    ):
        find_entry("cifar1O")
    with pytest.raises(ValueError, match=r"no data set 'zzzzzz'; it has: text8"):
        describe(["zzzzzz"])


def test_the_table_names_every_set_within_its_width():
    lines = describe().splitlines()
    assert set(load_catalog()) <= {line.split(" ")[0] for line in lines}
    assert max(map(len, lines)) <= WIDTH


@every_name
def test_an_entry_is_described_completely(name):
    facts = find_entry(name)
    description = " ".join(describe([name]).split())
    stated = (facts.title, facts.citation, facts.home, facts.note or "", facts.files or "")
    for text in (*stated, " ".join(params_entry(name).split())):
        assert text in description
