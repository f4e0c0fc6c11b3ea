"""The stage `fit_features` warns of a network that predicts not clearly above chance, by its own numbers."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from mdpipe.data.dataset import EncodedDataset
from mdpipe.evaluation.image_features import chance_level
from mdpipe.params import Params, parse_params
from mdpipe.pipeline import paths
from mdpipe.stages.fit_features import fit_features


def with_training(params: Params, **settings: float) -> Params:
    content = params.model_dump(mode="json")
    content["image_quality"]["features"]["digits"] |= settings
    return parse_params(content)


def test_only_a_network_at_chance_level_is_warned_of(
    place: Path, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mdpipe")
    chance = chance_level(EncodedDataset.open(paths.encoded("digits"), "test"))
    labels = np.asarray(EncodedDataset.open(paths.encoded("digits"), "test").labels)
    assert chance == np.unique(labels, return_counts=True)[1].max() / len(labels) > 0.1
    warned = []
    for settings in ({"steps": 1, "learning_rate": 1e-9}, {"steps": 120, "hidden_size": 16, "learning_rate": 1e-2}):
        caplog.clear()
        fit_features(with_training(params, **settings), "digits")
        files = (paths.record("features", "digits"), paths.metrics("features", "digits"))
        record = {key: value for file in files for key, value in json.loads(file.read_text()).items()}
        warned.append(bool(caplog.messages))
        assert warned[-1] == (record["accuracy"] - 1.96 * record["accuracy_stderr"] <= chance)
        for message in caplog.messages:
            measured = (
                f"{record['accuracy']:.3f} ± {record['accuracy_stderr']:.3f}, not clearly above chance ({chance:.3f})"
            )
            assert message.startswith("image_quality.features.digits: the network's accuracy on held-out images is ")
            assert measured in message
    assert warned == [True, False]
