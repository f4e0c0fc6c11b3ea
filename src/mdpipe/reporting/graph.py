"""The graph of the stages of dvc.yaml: an edge goes from each kind of stage to those that use its outputs."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from functools import reduce
from itertools import product
from typing import Any

import altair as alt
import networkx as nx
import polars as pl

from mdpipe.reporting.charts import Chart

LAYER_HEIGHT = 74
"""Height of a layer in pixels."""
EDGES = {"x": pl.Float64, "y": pl.Float64, "x2": pl.Float64, "y2": pl.Float64}
"""Columns of the two ends of an edge."""


def stage_graph(stages: Mapping[str, Any]) -> "nx.DiGraph[str]":
    """Return the dependencies between the stages of dvc.yaml, without those that follow from others."""
    entries = {name: stage.get("do", stage) for name, stage in stages.items()}
    outputs = [
        (out, name)
        for name, entry in entries.items()
        for key in ("outs", "metrics", "plots")
        for out in _paths(entry.get(key, ()))
    ]
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(entries)
    for name, entry in entries.items():
        inputs = [*_paths(entry["deps"]), *_paths(entry.get("params", ()))]
        makers = {maker for path, (out, maker) in product(inputs, outputs) if _is_same_or_inside(path, out)}
        graph.add_edges_from((maker, name) for maker in makers - {name})
    return nx.transitive_reduction(graph)


def graph_chart(stages: Mapping[str, Any], params: Mapping[str, Any]) -> Chart:
    """Show the stages of dvc.yaml from top to bottom, each with the number of its instances.

    Args:
        stages: The section `stages` of dvc.yaml.
        params: The params that its `foreach` and `matrix` refer to.
    """
    graph = stage_graph(stages)
    layers = [sorted(layer, key=list(stages).index) for layer in nx.topological_generations(graph)]
    nodes = {
        name: {
            "x": at - (len(layer) - 1) / 2,
            "y": -depth,
            "label": [*name.split("_"), _instances(stages[name], params)],
        }
        for depth, layer in enumerate(layers)
        for at, name in enumerate(layer)
    }
    edges = [[nodes[end][axis] for end in edge for axis in ("x", "y")] for edge in sorted(graph.edges)]
    labels = [{**node, "stage": stages[name].get("do", stages[name])["desc"]} for name, node in nodes.items()]
    text = alt.Chart(pl.DataFrame(labels)).encode(x="x:Q", y="y:Q", text="label:N", tooltip="stage:N")
    edge = alt.Chart(pl.DataFrame(edges, schema=EDGES, orient="row"), height=LAYER_HEIGHT * len(layers))
    half_width = max(len(layer) for layer in layers) / 2
    panel = alt.layer(
        edge.mark_rule(color="var(--gray)", strokeWidth=2).encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-half_width, half_width], nice=False)),
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[0.5 - len(layers), 0.5], nice=False)),
            x2="x2:Q",
            y2="y2:Q",
        ),
        text.mark_text(lineHeight=14, dy=-7, stroke="var(--background)", strokeWidth=8, strokeJoin="round"),
        text.mark_text(lineHeight=14, dy=-7),
    )
    names = ", ".join(name for layer in layers for name in layer)
    return Chart([panel], f"Stages of dvc.yaml, from first to last: {names}.")


def _instances(stage: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    loops = stage["matrix"].values() if "matrix" in stage else [stage["foreach"]] if "foreach" in stage else []
    sections = [
        reduce(lambda section, key: section.get(key, {}), loop.strip("${}").split("."), params) for loop in loops
    ]
    return f"×{math.prod(map(len, sections))}"


def _paths(entries: Iterable[Any]) -> Iterator[str]:
    """Yield paths, with a star for each variable; an entry with options has its path as the only key.

    Paths that consist of one variable are the user's files, which no stage makes.
    """
    paths = (re.sub(r"\$\{.*?\}", "*", entry if isinstance(entry, str) else next(iter(entry))) for entry in entries)
    return (path for path in paths if not path.startswith("*"))


def _is_same_or_inside(first: str, second: str) -> bool:
    """Return True if both may name the same file or folder, or one of them may be in the other."""
    pairs = zip(first.split("/"), second.split("/"), strict=False)
    return all(fnmatch(one, other) or fnmatch(other, one) for one, other in pairs)
