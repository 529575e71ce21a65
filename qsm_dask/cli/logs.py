"""Where the package's log goes: warnings to the terminal, and every line to a file as JSON if one is asked for."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.logging import RichHandler

from qsm_dask.cli.console import ERR
from qsm_dask.errors import ConfigError
from qsm_dask.events import FIELDS, LOGGER


class JsonLines(logging.FileHandler):
    """One JSON object a line: `time`, `level`, `message`, and the scan, node and step that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **{name: getattr(record, name, None) for name in FIELDS},
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def shown_log() -> Iterator[None]:
    """Send the package's own warnings to the standard error stream while a command runs; others keep their ways.

    What becomes of scans stays out: commands tell it in their own words.
    """
    log = logging.getLogger("qsm_dask")
    before = list(log.handlers), log.level, log.propagate
    terminal = RichHandler(console=ERR, show_time=False, show_path=False)
    terminal.setLevel(logging.WARNING)
    terminal.addFilter(lambda record: record.name != LOGGER)
    log.handlers, log.propagate = [terminal], False
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers, level, log.propagate = before
        log.setLevel(level)


def write_log(path: Path) -> None:
    """Append every line of the log to a file, as JSON.

    Raises
    ------
    ConfigError : the file cannot be written.
    """
    try:
        logging.getLogger("qsm_dask").addHandler(JsonLines(path, encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--log: {path} cannot be written: {error.strerror}") from error
