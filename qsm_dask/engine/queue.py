"""An engine on the jobs of a batch system: submit them, replace those that are lost, cancel the rest."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dask
from distributed import Client
from tornado.ioloop import PeriodicCallback

from qsm_dask.engine.base import Engine
from qsm_dask.engine.batch import Batch
from qsm_dask.engine.certificates import private_folder, put_in_folder, temporary_security
from qsm_dask.engine.dask import DaskEngine
from qsm_dask.engine.settings import SETTINGS, quiet
from qsm_dask.engine.sizing import job_memory, seconds
from qsm_dask.engine.window import NoRoomError
from qsm_dask.errors import ConfigError

_INSTALL = "pip install 'qsm-dask[hpc]'"
_STAFFING_S = 2.0
_GLANCE_S = 0.2


@contextmanager
def batch_engine(options: Batch) -> Iterator[Engine]:
    """Submit jobs whose workers join a scheduler in this process; cancel them at exit.

    Yields
    ------
    Engine : at once; jobs may wait in their queue for as long as `options.patience`.

    Raises
    ------
    ConfigError : dask-jobqueue or the batch system's commands are not on this machine, or the
        shared folder cannot be written.
    """
    classes = options.classes()
    command = classes.job.submit_command.split()[0]
    if shutil.which(command) is None:
        raise ConfigError(
            f"cluster of kind {options.system.lower()}: there is no command `{command}` on this machine: "
            "start the run where jobs can be submitted, such as a login node"
        )
    settings = {
        **SETTINGS,
        "distributed.deploy.lost-worker-timeout": f"{seconds('replace_after', options.replace_after):g} s",
        # Until the first scan has told how long one takes, adaptive scaling must not take them for short.
        "distributed.scheduler.unknown-task-duration": "5 minutes",
    }
    with quiet(), dask.config.set(settings), private_folder(options.shared_folder) as folder:
        cluster = classes.cluster(
            security=put_in_folder(temporary_security(_INSTALL), folder) if options.tls else None,
            scheduler_options={
                "interface": options.interface,
                "port": options.scheduler_port,
                "dashboard_address": options.dashboard,
            },
            **options.job(),
        )
        try:
            if options.least_jobs is None:
                cluster.scale(jobs=options.jobs)
            else:
                cluster.adapt(minimum=options.least_jobs, maximum=options.jobs)
            with Client(cluster, set_as_default=False) as client, _staffed(cluster):
                yield DaskEngine(
                    client,
                    slots=options.jobs,
                    limit=options.limit,
                    threads=options.threads_per_worker,
                    patience_s=seconds("patience", options.patience),
                    own_python=options.python is None,
                    wear=options.wear(),
                    larger=lambda: _larger(cluster, client, options),
                )
        finally:
            cluster.close()


@contextmanager
def _larger(cluster: Any, client: Client, options: Batch) -> Iterator[str]:
    """Submit one more job, with twice the memory, and wait until its worker is there."""
    name = f"{cluster.name}-larger"
    double = replace(options, memory=2 * job_memory(options.memory)[0])
    arguments = cluster.new_spec["options"] | double.job()
    cluster.worker_spec[name] = {"cls": cluster.new_spec["cls"], "options": arguments}
    cluster.scale(len(cluster.worker_spec))
    try:
        end = time.monotonic() + seconds("patience", options.patience)
        while not (found := _address_of(name, client)):
            job = cluster.workers.get(name)
            if job is not None and job.job_id is None:
                raise NoRoomError("the batch system refuses a job of twice the memory")
            if time.monotonic() > end:
                raise NoRoomError("no job of twice the memory began in time (`patience`)")
            time.sleep(_GLANCE_S)
        yield found
    finally:
        del cluster.worker_spec[name]
        cluster.scale(len(cluster.worker_spec))


def _address_of(name: str, client: Client) -> str:
    """The worker of this name; empty if it is not there."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return next((str(address) for address, worker in workers.items() if worker["name"] == name), "")


@contextmanager
def _staffed(cluster: Any) -> Iterator[None]:
    """Submit anew what was lost: dask forgets a lost job, and replaces it only when it is asked to scale."""

    def staff() -> None:
        for name, job in list(cluster.workers.items()):
            if job.job_id is None:  # its submission failed; dask would wait for it for ever
                del cluster.workers[name]
        cluster.scale(len(cluster.worker_spec))

    watch = PeriodicCallback(staff, _STAFFING_S * 1000)
    cluster.loop.add_callback(watch.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(watch.stop)
