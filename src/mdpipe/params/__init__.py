"""Types of params.yaml, by which it is checked before anything runs."""

from mdpipe.params.root import (
    PARAMS_FILE,
    RESOLVED_PARAMS_FILE,
    Params,
    ParamsError,
    dump_params,
    json_schema,
    load_params,
    parse_assignments,
    parse_params,
    read_params,
)
from mdpipe.params.runs import EstimatorConfig, EvaluateConfig, Run
from mdpipe.params.sampling import SampleConfig
from mdpipe.params.suites import ZeroShot
from mdpipe.params.training import AdamWConfig, HardwareConfig, MuonConfig, NorMuonConfig, TrainConfig

__all__ = [
    "PARAMS_FILE",
    "RESOLVED_PARAMS_FILE",
    "AdamWConfig",
    "EstimatorConfig",
    "EvaluateConfig",
    "HardwareConfig",
    "MuonConfig",
    "NorMuonConfig",
    "Params",
    "ParamsError",
    "Run",
    "SampleConfig",
    "TrainConfig",
    "ZeroShot",
    "dump_params",
    "json_schema",
    "load_params",
    "parse_assignments",
    "parse_params",
    "read_params",
]
