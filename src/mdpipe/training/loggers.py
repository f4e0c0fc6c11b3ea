"""Loggers of a training run: the console, TensorBoard, Weights & Biases, MLflow and DVCLive.

Each but the console is an extra of its name. No artifact depends on the logs.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import TextColumn

from mdpipe.params.errors import did_you_mean
from mdpipe.progress import progress_bar
from mdpipe.training.metrics import TrainMetrics

MetricsLogger = Callable[[TrainMetrics], None]

LOGGERS_VARIABLE = "MDPIPE_LOGGERS"
"""Names of loggers, separated by commas; if it is unset, TensorBoard where it is installed."""
PROJECT = "mdpipe"
"""W&B's project and MLflow's experiment."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedRun:
    """The run that loggers are opened for."""

    name: str
    run_hash: str
    """Identifies the training, so that W&B continues its curves after an interruption."""
    settings: Mapping[str, Any]
    """The run's section of params.yaml."""
    folder: Path
    """The folder for its files."""


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def log_to_console(metrics: TrainMetrics) -> None:
    """Log the metrics as one line."""
    logger.info("%s", metrics)


@contextmanager
def open_loggers(run: LoggedRun) -> Iterator[MetricsLogger]:
    """Yield a function that logs metrics to the console and to the loggers of `MDPIPE_LOGGERS`.

    Raises:
        ValueError: There is no logger of a name, or its package is not installed.
    """
    with ExitStack() as stack:
        logs = [stack.enter_context(_open_progress_bar()) if sys.stderr.isatty() else log_to_console]
        names = os.environ.get(LOGGERS_VARIABLE)
        for name in ["tensorboard"] if names is None else filter(None, map(str.strip, names.split(","))):
            if name not in LOGGERS:
                hint = did_you_mean(name, LOGGERS)
                raise ValueError(f"{LOGGERS_VARIABLE} has {name!r}{hint}; the loggers are {', '.join(LOGGERS)}")
            try:
                logs.append(stack.enter_context(LOGGERS[name](run)))
            except ImportError as error:
                if names is not None:
                    hint = f"`pip install 'mdpipe[{name}]'`"
                    raise ValueError(f"{LOGGERS_VARIABLE} has {name}, which needs {error.name}: {hint}") from error

        def log(metrics: TrainMetrics) -> None:
            for log_metrics in logs:
                log_metrics(metrics)

        yield log


@contextmanager
def _open_progress_bar() -> Iterator[MetricsLogger]:
    with progress_bar(TextColumn("{task.fields[metrics]}"), transient=False) as bar:
        task = bar.add_task("training", total=None, metrics="")
        yield lambda metrics: bar.update(task, completed=metrics.step, total=metrics.steps, metrics=metrics)


@contextmanager
def _open_tensorboard(run: LoggedRun) -> Iterator[MetricsLogger]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.folder)) as writer:

        def log(metrics: TrainMetrics) -> None:
            for tag, value in metrics.scalars.items():
                writer.add_scalar(tag, value, metrics.step)
            if metrics.objective:
                writer.add_text("train/objective", metrics.objective, metrics.step)
            writer.flush()

        yield log


@contextmanager
def _open_wandb(run: LoggedRun) -> Iterator[MetricsLogger]:
    """Log to the account of `wandb login`, or with WANDB_MODE=offline to files that `wandb sync` uploads."""
    import wandb

    run.folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=run.name,
        id=f"{run.name}-{run.run_hash[:16]}",
        resume="allow",
        dir=run.folder,
        config=dict(run.settings),
    ) as writer:
        yield lambda metrics: writer.log(metrics.scalars, step=metrics.step)


@contextmanager
def _open_mlflow(run: LoggedRun) -> Iterator[MetricsLogger]:
    """Log to the server of MLFLOW_TRACKING_URI, or to logs/mlflow.db; a failing server does not stop the training."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    database = run.folder.absolute().parents[1] / "mlflow.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{database}"))
    experiment = client.get_experiment_by_name(PROJECT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
    run_id = client.create_run(experiment_id, run_name=run.name, tags={"run_hash": run.run_hash}).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in _flatten(run.settings).items()])

    def log(metrics: TrainMetrics) -> None:
        now = int(time.time() * 1000)
        try:
            scalars = [Metric(tag, value, now, metrics.step) for tag, value in metrics.scalars.items()]
            client.log_batch(run_id, metrics=scalars)
        except MlflowException as error:
            logger.warning("MLflow has not logged step %d: %s", metrics.step, error)

    status = "FAILED"
    try:
        yield log
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)


@contextmanager
def _open_dvclive(run: LoggedRun) -> Iterator[MetricsLogger]:
    """Write dvclive/ in the run's folder; experiments are DVC's own, `dvc exp run`."""
    from dvclive.live import Live

    with Live(str(run.folder / "dvclive"), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        live.log_params(_flatten(run.settings))

        def log(metrics: TrainMetrics) -> None:
            live.step = metrics.step
            for tag, value in metrics.scalars.items():
                live.log_metric(tag, value)
            live.make_summary()

        yield log


LOGGERS: dict[str, Callable[[LoggedRun], AbstractContextManager[MetricsLogger]]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
    "dvclive": _open_dvclive,
}
