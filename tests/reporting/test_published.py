"""Published numbers are compared only where the measured one follows the same convention."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdpipe.params import Params
from mdpipe.params.catalog import find_entry, load_catalog
from mdpipe.params.root import load_params, parse_params, read_params
from mdpipe.pipeline import paths
from mdpipe.reporting.published import NOT_A_BOUND, compare_with_published
from mdpipe.reporting.tables import likelihood_table, zero_shot_table
from tests.reporting.records import evaluation, zero_shot

UNITS = {"perplexity", "bits/char", "bits/dim", "FID", "accuracy/%"}


def read_published() -> pl.DataFrame:
    return pl.read_csv(paths.PUBLISHED, infer_schema_length=None)


@pytest.fixture(scope="module")
def published() -> pl.DataFrame:
    return read_published()


def preset(name: str) -> Params:
    return load_params(Path(f"workflow/presets/{name}.yaml"))


def compare(preset_name: str, held_out: list[dict[str, Any]], others: list[dict[str, Any]] = []) -> pl.DataFrame:  # noqa: B006
    return compare_with_published(
        likelihood_table(held_out, []), zero_shot_table(others), read_published(), preset(preset_name)
    )


def test_every_published_number_has_source_unit_and_data(published: pl.DataFrame) -> None:
    assert published.height == 383
    assert published.select("method", "dataset", "unit", "value", "source").null_count().sum_horizontal().item() == 0
    assert set(published["unit"]) == UNITS
    assert set(published["dataset"]) - {"hellaswag"} <= set(load_catalog())
    assert set(published["relation"].drop_nulls()) == {"=", "<=", NOT_A_BOUND}
    likelihoods = published.filter(pl.col("unit").is_in(["perplexity", "bits/char", "bits/dim"]))
    assert likelihoods["relation"].null_count() == 0
    assert published.is_unique().all()


@pytest.mark.parametrize(
    ("method", "size", "dataset", "value"),
    [
        ("MD4", "S", "lambada", 48.43),
        ("MD4", "M", "lm1b_test", 51.45),
        ("MD4", None, "text8", 1.37),
        ("GenMD4", None, "text8", 1.34),
        ("MD4", None, "cifar10", 2.75),
        ("MD4", None, "imagenet64", 3.40),
        ("MD4, first version", None, "cifar10", 2.78),
        ("MD4, first version", None, "imagenet64", 3.42),
        ("GenMD4", "S", "openwebtext_chunks", 21.80),
    ],
)
def test_headline_numbers_of_the_paper(
    published: pl.DataFrame, method: str, size: str | None, dataset: str, value: float
) -> None:
    of_tables = pl.col("source").str.contains(r"Table [1235]$|v1\), abstract$")
    tables = published.filter(of_tables, method=method, dataset=dataset)
    rows = tables.filter(pl.col("size").eq_missing(pl.lit(size)))
    assert rows["value"].to_list() == [value]


def test_numbers_that_are_not_bounds_say_why(published: pl.DataFrame) -> None:
    rows = published.filter(relation=NOT_A_BOUND)
    assert rows["method"].str.starts_with("MDLM-Prime").all() and rows.height == 3
    data = read_params(Path("workflow/presets/paper_openwebtext.yaml"))
    data["sources"]["openwebtext_chunks"]["name"] = "openwebtext"
    data["datasets"]["openwebtext"] |= find_entry("openwebtext").dataset
    record = evaluation("small", "openwebtext", "text", split="validation")
    found = compare_with_published(
        likelihood_table([record], []), zero_shot_table([]), published, parse_params(data)
    ).filter(unit="perplexity")
    # Records of tests have the tokenizer of the params, GPT-2's.
    assert found.filter(pl.col("relation") != NOT_A_BOUND)["comparable"].unique().to_list() == ["yes"]
    refused = found.filter(relation=NOT_A_BOUND)
    assert refused.height == 3 and refused["comparable"].str.starts_with("not a bound: ").all()


def test_text8_is_compared_with_the_papers_protocol_only() -> None:
    record = evaluation("md4", "text8", "text", value=1.4, unit="bits/char")
    found = compare("paper_text8", [record])
    rows = {(row["method"], row["published"]): row["comparable"] for row in found.iter_rows(named=True)}
    assert rows["MD4", 1.37] == "yes" and rows["Transformer AR", 1.23] == "yes"
    assert rows["OA-ARDM", 1.43] == "protocol text8, published with windows of 250"
    assert rows["MDLM", 1.40] == "protocol text8, published with mdlm"
    assert set(found["measured"]) == {1.4}


def test_validation_is_not_compared_with_published_test_numbers() -> None:
    found = compare("paper_text8", [evaluation("md4", "text8", "text", split="validation", unit="bits/char")])
    assert set(found["comparable"]) == {"another split: the published one is test, by the catalog"}


def test_split_under_another_name_is_compared() -> None:
    """ImageNet's validation images are what presets evaluate as the split `test`."""
    record = evaluation("md4", "imagenet64", "image", unit="bits/dim")
    found = compare("paper_imagenet64", [record])
    assert found.height == 7 and set(found["comparable"]) == {"yes"}
    assert set(found["split"]) == {"validation"}


def test_zero_shot_is_compared_within_its_protocol() -> None:
    records = [
        zero_shot("small", "lambada", dataset="openwebtext", protocol=protocol) | {"tokenizer": "gpt2"}
        for protocol in ("sedd", "mdlm_zero_shot")
    ]
    record = records[0] | {"bounds": [each["bounds"][0] for each in records]}
    found = compare("paper_openwebtext", [], [record])
    assert set(found["unit"]) == {"perplexity"} and found.height == 78
    fair = found.filter(comparable="yes")
    assert fair.height == 39
    assert fair.filter(method="MD4", published=48.43).height == 1
    unfair = found.filter(pl.col("comparable") != "yes")
    assert set(unfair["comparable"]) == {
        "protocol sedd, published with mdlm_zero_shot",
        "protocol mdlm_zero_shot, published with sedd",
    }


def test_data_of_ones_own_have_no_published_numbers() -> None:
    suite = load_params(Path("params.yaml"))
    table = likelihood_table([evaluation("chars_md4", "docs_chars", "text")], [])
    found = compare_with_published(table, zero_shot_table([]), read_published(), suite)
    assert_frame_equal(found, found.clear())
