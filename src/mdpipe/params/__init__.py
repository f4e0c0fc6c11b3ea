"""params.yaml, typed: what the whole pipeline is asked to do, checked before anything runs."""

from mdpipe.params.hardware import HardwareSettings
from mdpipe.params.load import (
    PARAMS_FILE,
    ParamsError,
    json_schema,
    load_params,
    parse_params,
    parse_value,
    read_params,
)
from mdpipe.params.optimizer import AdamW, Muon
from mdpipe.params.root import Params
from mdpipe.params.runs import EvaluateSettings, Run, TrainSettings, ZeroShot
from mdpipe.params.sampling import SampleSettings

__all__ = [
    "PARAMS_FILE",
    "AdamW",
    "EvaluateSettings",
    "HardwareSettings",
    "Muon",
    "Params",
    "ParamsError",
    "Run",
    "SampleSettings",
    "TrainSettings",
    "ZeroShot",
    "json_schema",
    "load_params",
    "parse_params",
    "parse_value",
    "read_params",
]
