"""The processes that train one model together, which torchrun or a cluster's launcher started.

One of them, of rank 0, decides and writes. Where a process trains alone, all of this does nothing.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy

from ebnerd_lib.errors import ConfigError

SECONDS = 20
"""How long processes on CPUs wait for each other within training, and at its start, before they give up."""
_PATIENCE = timedelta(days=1)  # for what rank 0 does alone, as reading all inputs of a large bundle
_T = TypeVar("_T")


def spread() -> dict[str, int]:
    """Return the trainer's ``devices`` and ``num_nodes`` as torchrun or SLURM started processes.

    Returns:
        Nothing where this process was started alone.

    Raises:
        ConfigError: the nodes have different numbers of processes.
    """
    if TorchElasticEnvironment.detect():
        processes, on_node = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = max(1, processes // on_node)
    elif SLURMEnvironment.detect():
        processes, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
        on_node = max(1, processes // nodes)
    else:
        return {}
    if on_node * nodes != processes:
        raise ConfigError(f"devices: {processes} processes on {nodes} nodes. Start equally many on each node.")
    return {"devices": on_node, "num_nodes": nodes} if processes > 1 else {}


def lightning(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trainer's options with ``strategy: ddp`` made ready: it gives up on a process that does not answer.

    On GPUs Lightning's own limit stands, since starting NCCL takes its time.
    """
    if options.get("strategy") != "ddp":
        return dict(options)
    on_cpu = options.get("accelerator") == "cpu" or not torch.cuda.is_available()
    limit = {"timeout": timedelta(seconds=SECONDS)} if on_cpu else {}
    # The only buffers are those of the transform, which do not change once rank 0 has handed them on.
    return {**options, "strategy": DDPStrategy(forward_sync_buffers=False, **limit)}


class OwnSigterm(Callback):
    """Keeps this process's own answer to SIGTERM: Lightning's first waits for the other processes, who know nothing."""

    def __init__(self) -> None:
        self._answer = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Undo what Lightning has set by now."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._answer)


def join(options: Mapping[str, Any]) -> None:
    """Meet the other processes, if there are any, before the first training; once a process.

    Args:
        options: of the trainer.
    """
    if int(options["devices"]) * int(options["num_nodes"]) > 1:
        trainer = pl.Trainer(
            **lightning(options), logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.strategy.setup_environment()


def several() -> bool:
    """Say whether other processes train with this one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Say whether this process decides and writes."""
    return not several() or dist.get_rank() == 0


def name() -> str:
    """Return what to call this process in messages."""
    return f"rank {dist.get_rank()} of {dist.get_world_size()}" if several() else "this process"


def is_of_another(error: RuntimeError) -> bool:
    """Say whether an error comes from another process, one that ended or does not answer."""
    return several() and (isinstance(error, dist.DistError) or "gloo" in str(error))


def by_first(work: Callable[[], _T]) -> _T:
    """Let rank 0 alone do something, however long it takes, and give what comes of it to all, who wait for it."""
    if not several():
        return work()
    box = [work() if is_first() else None]
    dist.broadcast_object_list(box, src=0, group=_patient())
    return box[0]  # type: ignore[return-value]


def wait_for_first() -> None:
    """Wait until rank 0 is here, however long that takes."""
    by_first(lambda: None)


@cache
def _patient() -> Any:
    return dist.new_group(backend="gloo", timeout=_PATIENCE)
