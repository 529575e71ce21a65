"""What the tests of ingest share: a small engine, and what became of scans."""

import os

from qsm_dask.engine.base import SerialEngine
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY
from qsm_dask.workflow import ingest

ENGINE = SerialEngine(limit=2**30)


def run(root, cohort, **options):
    return ingest.run(root, cohort, ENGINE, **options)


def commit_of(cohort, scan_name):
    return cohort.commit(ScanKey.parse(scan_name), "ingest", INGEST_KEY)


def counts(summary):
    return summary.done, summary.unchanged, summary.failed, summary.skipped


def touch_later(path, seconds=10):
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + seconds * 10**9))
