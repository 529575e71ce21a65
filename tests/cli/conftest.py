import json
import sys

import pytest

from qsm_dask import cli


@pytest.fixture
def qsm(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["qsm-dask", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        found = capsys.readouterr()
        return end.value.code, found.out, found.err

    return run


@pytest.fixture
def told(qsm):
    """What a command prints with `--json`, once it succeeded."""

    def run(*arguments):
        code, out, err = qsm(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run
