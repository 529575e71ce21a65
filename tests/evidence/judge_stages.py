"""Judge the list of stages: every one of the table, and of each all that there is to know."""

import json
import sys
from pathlib import Path

from qsm_dask import STAGES

UNITLESS = ("tolerance", "iterations", "threshold", "rho", "fraction")
"""Parameters whose name says that they are pure numbers; of other numbers without a unit the reader is told."""


def main() -> int:
    listed = {one["stage"]: one for one in json.loads(Path(sys.argv[1]).read_text())}
    text = Path(sys.argv[2]).read_text()
    problems = [f"{name} is not listed" for name in STAGES if name not in listed or f"{name}  " not in text]
    count = without_unit = 0
    for name, one in listed.items():
        if not (one["memory"]["bytes"] > 0 and one["memory"]["float32_volumes"] > 0):
            problems.append(f"{name}: no memory")
        if set(one["parameters"]) != set(STAGES[name].parameters):
            problems.append(f"{name}: other parameters than its kernel has")
        for parameter, told in one["parameters"].items():
            count += 1
            if not (told["type"] and told["meaning"] and ("default" in told or told["required"])):
                problems.append(f"{name}: {parameter} lacks type, meaning or default")
            if parameter not in text:
                problems.append(f"{name}: {parameter} is not in the terminal's list")
            if told["type"] == "number" and not told["units"] and not parameter.endswith(UNITLESS):
                without_unit += 1
                print(f"pure number: {name} {parameter}: {told['meaning']}")
    uncited = sorted(name for name, one in listed.items() if not one["doi"])
    for problem in problems:
        print(problem)
    print(f"no paper to cite: {', '.join(uncited) or 'none'}; {without_unit} pure numbers listed above")
    print(f"{len(listed)} stages, {count} parameters, {len(listed) - len(uncited)} with DOI: {len(problems)} problems")
    return 1 if problems or not listed else 0


if __name__ == "__main__":
    sys.exit(main())
