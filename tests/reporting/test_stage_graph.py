"""The graph of the stages is that of dvc.yaml."""

from pathlib import Path

import networkx as nx
import yaml

from mdpipe.reporting.graph import graph_chart, stage_graph

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.resolved.yaml").read_text())


def test_every_stage_waits_for_those_that_make_its_dependencies():
    assert set(stage_graph(STAGES).edges) == {
        ("resolve", "download"),
        ("download", "fit_tokenizer"),
        ("fit_tokenizer", "encode"),
        ("encode", "train"),
        ("train", "sample"),
        ("train", "evaluate"),
        ("train", "zero_shot"),
        ("train", "compare_samplers"),
        ("encode", "fit_features"),
        ("fit_features", "measure_images"),
        ("train", "measure_images"),
        *((stage, "report") for stage in ("sample", "evaluate", "zero_shot", "compare_samplers", "measure_images")),
    }


def test_a_stage_that_needs_nothing_of_others_has_no_edge():
    graph = stage_graph({name: {"deps": [f"src/{name}"], "outs": [f"data/{name}"]} for name in "ab"})
    assert set(graph) == {"a", "b"}
    assert nx.number_of_edges(graph) == 0


def test_every_stage_has_its_label_and_its_number_of_instances():
    (spec,) = graph_chart(STAGES, PARAMS).to_specs()
    labels = {" ".join(row["label"]) for data in spec["datasets"].values() for row in data if "stage" in row}
    runs, datasets, pairs = len(PARAMS["runs"]), len(PARAMS["datasets"]), 2 * 3
    assert {f"train ×{runs}", f"encode ×{datasets}", f"zero shot ×{pairs}", "report ×1"} <= labels
    assert len(labels) == len(STAGES)
