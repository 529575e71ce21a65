"""Who is charged with a worker's death, case by case; A and B are workers, numbers are submissions."""

from qsm_dask.engine.blame import Blame, Verdict


def test_the_one_that_had_started_is_guilty_and_the_one_behind_it_is_not() -> None:
    for order in ((1, 2), (2, 1)):
        blame = Blame()
        blame.started(1, "A")
        verdicts = {number: blame.died(number, "A", alone=False) for number in order}
        assert verdicts == {1: Verdict.GUILTY, 2: Verdict.INNOCENT}


def test_without_a_report_each_is_suspect() -> None:
    blame = Blame()
    blame.started(3, "B")
    assert [blame.died(number, "A", alone=False) for number in (1, 2)] == [Verdict.SUSPECT, Verdict.SUSPECT]


def test_one_that_ended_is_no_explanation() -> None:
    blame = Blame()
    blame.started(1, "A")
    blame.ended(1)
    assert blame.died(2, "A", alone=False) is Verdict.SUSPECT


def test_alone_there_is_nobody_else_to_blame() -> None:
    blame = Blame()
    blame.stopped("A")
    assert blame.died(1, "A", alone=True) is Verdict.GUILTY


def test_a_start_elsewhere_does_not_count() -> None:
    blame = Blame()
    blame.started(1, "A")
    assert blame.died(1, "B", alone=False) is Verdict.SUSPECT


def test_a_worker_that_the_engine_ended_died_of_no_task() -> None:
    blame = Blame()
    blame.started(1, "A")
    blame.stopped("A")
    blame.ended(1)
    blame.started(2, "A")
    assert blame.died(2, "A", alone=False) is Verdict.INNOCENT
    assert blame.died(3, "A", alone=False) is Verdict.INNOCENT
