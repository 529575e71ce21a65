"""Runs inside the processes under test: counts the steps that they execute, and lets things go wrong at named points.

The product knows nothing of this. `site/sitecustomize.py` calls `plant` in every Python process that a test starts
with the environment of `Faults`; functions of the product are then wrapped as their modules are imported.

A point is armed by a file in the folder `armed` (see `Faults.arm`). Whoever takes the file away does what it says, so
that a fault happens as often as it was armed, whichever process comes first.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = "QSM_DASK_TEST_FAULTS"
_MIB = 2**20

_now = {"scan": "", "node": ""}
"""What this process, which runs one task at a time, works on."""


def reach(point: str) -> str | None:
    """What to do at a point, if it is armed for the scan that this process works on."""
    folder = Path(os.environ[FOLDER], "armed")
    for path in sorted(folder.glob("*.json")):
        try:
            order = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            continue
        if order["point"] != point or order["scan"] not in (None, _now["scan"]):
            continue
        if not order["always"]:
            taken = path.with_suffix(f".{os.getpid()}")
            try:
                path.rename(taken)
            except FileNotFoundError:
                continue  # another process was first
            taken.write_text(str(os.getpid()))
            taken.rename(path.with_suffix(".met"))
        return str(order["act"])
    return None


def meet(point: str) -> None:
    """Reach a point, and let happen there what was ordered."""
    act = reach(point)
    if act is not None:
        ACTS[act]()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(600)


def rendezvous() -> None:
    """Go on when nobody is awaited at a point any more."""
    end = time.monotonic() + 30
    while list(Path(os.environ[FOLDER], "armed").glob("*.json")) and time.monotonic() < end:
        time.sleep(0.01)


def hold() -> None:
    """Go on when the test says so."""
    end = time.monotonic() + 60
    while not Path(os.environ[FOLDER], "release").exists() and time.monotonic() < end:
        time.sleep(0.01)


def gorge() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(_MIB)) * 50)
        time.sleep(0.02)


def feast() -> None:
    """Takes more than a worker of 1 GiB has, and less than one of twice that."""
    hoard = [bytearray(os.urandom(_MIB)) * 100 for _ in range(12)]
    time.sleep(1.0)
    del hoard


ACTS: dict[str, Callable[[], None]] = {
    "kill": kill,
    "hang": hang,
    "hold": hold,
    "rendezvous": rendezvous,
    "gorge": gorge,
    "feast": feast,
}


def _note(line: str) -> None:
    with Path(os.environ[FOLDER], "steps").open("a") as file:
        file.write(f"{line}\n")


# What is wrapped, by module.


def _plan(module: Any) -> None:
    call = module.call

    def counted(step: Any, *rest: Any) -> Any:
        if not _now["scan"]:  # kernels are compiled ahead, on a volume that is no scan's
            return call(step, *rest)
        _note(f"{_now['scan']} {step.stage}")
        found = call(step, *rest)
        meet(f"step {step.stage}")  # computed, and handed to nobody yet
        return found

    module.call = counted


def _cohort(module: Any) -> None:
    store = module.CohortStore
    commit, write = store.commit, store.write

    def noted(self: Any, scan: Any, node: str, key: str) -> Any:
        if node == "ingest":  # a task looks for its scan's ingest before anything else
            _now["scan"] = str(scan)
        return commit(self, scan, node, key)

    def named(self: Any, scan: Any, node: str, *rest: Any, **options: Any) -> Any:
        _now["node"] = node
        return write(self, scan, node, *rest, **options)

    store.commit, store.write = noted, named


def _nodes(module: Any) -> None:
    check, publish = module._check_written, module._publish

    def checked(files: Any, made: Any) -> None:
        meet(f"{made.node}: attempt written")
        check(files, made)
        meet(f"{made.node}: attempt verified")

    def published(files: Any, made: Any) -> None:
        publish(files, made)
        meet(f"{made.node}: committed")

    module._check_written, module._publish = checked, published


def _files(module: Any) -> None:
    write, put_all, replace = module._write, module.LocalFiles.put_all, os.replace

    def torn(path: str, data: bytes) -> None:
        draft = _kind(Path(path).name)
        if "/c." in path and reach(f"{_now['node']}: chunk torn") is not None:
            write(path, data[: len(data) // 2])
            kill()
        if draft and reach(f"{draft}: draft torn") is not None:
            write(path, data[: len(data) // 2])
            kill()
        write(path, data)
        if draft:
            meet(f"{draft}: drafted")

    def begun(self: Any, objects: Any) -> None:
        meet(f"{_now['node']}: attempt begun")
        put_all(self, objects)

    def replaced(source: Any, target: Any, **options: Any) -> None:
        replace(source, target, **options)
        kind = _kind(f".{Path(target).name}.")
        if kind:
            meet(f"{kind}: replaced")

    module._write, module.LocalFiles.put_all, os.replace = torn, begun, replaced


def _kind(draft: str) -> str:
    """What a draft `.<name>.<uuid>` is of."""
    if draft.startswith(".COMMIT.json."):
        return f"{_now['node']} marker"
    if draft.startswith("."):
        return "merged index" if "-merged-" in draft else "index" if ".parquet." in draft else "document"
    return ""


_WRAPPED: dict[str, Callable[[Any], None]] = {
    "qsm_dask.pipeline.plan": _plan,
    "qsm_dask.store.cohort": _cohort,
    "qsm_dask.store.files": _files,
    "qsm_dask.store.nodes": _nodes,
}


class _Wrapping(Loader):
    def __init__(self, loader: Loader, wrap: Callable[[Any], None]) -> None:
        self._loader, self._wrap = loader, wrap

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._wrap(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _WRAPPED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapping(spec.loader, _WRAPPED[name])
        return spec


def plant() -> None:
    """Wrap the product's functions in this process, as their modules are imported."""
    sys.meta_path.insert(0, _Finder())
