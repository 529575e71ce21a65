"""Kill a run after some commits and before the last; resume; compare with a run that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def run(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(["qsm-dask", *map(str, arguments)], check=True, **options)


def commits(cohort: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cohort)): path.read_bytes() for path in cohort.glob("scans/*/*/*/COMMIT.json")}


def results(cohort: Path) -> dict[tuple[str, str], str]:
    found = run("status", cohort, "--json", capture_output=True)
    return {(row["scan"], row["node"]): row["digest"] for row in json.loads(found.stdout)}


def kill_midway(bids: Path, cohort: Path, wanted: int) -> dict[str, bytes]:
    """Start a run and SIGKILL it, with its workers, once `wanted` nodes beyond ingest are committed."""
    command = ["qsm-dask", "run", str(bids), str(cohort), "--quiet"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done = [name for name in commits(cohort) if "/ingest/" not in name]
            if len(done) >= wanted:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
    time.sleep(1)
    return commits(cohort)


def main() -> int:
    out = Path(sys.argv[1])
    bids = out / "bids"
    run("simulate", bids, "--subjects", 6, "--shape", 48, 56, 40, "--quiet")
    run("run", bids, out / "undisturbed", "--quiet")
    expected = results(out / "undisturbed")
    before = kill_midway(bids, out / "killed", wanted=4)
    total = len(commits(out / "undisturbed"))
    if not 6 < len(before) < total:
        print(f"killed too late or too early: {len(before)} of {total} commits")
        return 1
    run("run", bids, out / "killed", "--quiet")
    after = commits(out / "killed")
    kept = sum(after.get(name) == content for name, content in before.items())
    same = results(out / "killed") == expected
    print(f"killed with {len(before)} of {total} commits; {kept} of them unchanged after the resumed run")
    print(f"digests equal those of the undisturbed run: {same}")
    return 0 if kept == len(before) and same else 1


if __name__ == "__main__":
    sys.exit(main())
