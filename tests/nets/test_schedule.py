"""The learning rates of the papers, by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsltool.errors import TrainingError
from wsltool.nets.schedule import Schedule


def test_kim_and_sec() -> None:
    """1e-3, a tenth every 2000 of 8000 iterations (Kim et al. 2017, §3.3)."""
    schedule = Schedule.parse("step=2000")
    lr = {i: 1e-3 * schedule.factor(i, 8000) for i in (0, 1999, 2000, 3999, 4000, 6000, 7999)}
    wanted = {0: 1e-3, 1999: 1e-3, 2000: 1e-4, 3999: 1e-4, 4000: 1e-5, 6000: 1e-6, 7999: 1e-6}
    assert lr == pytest.approx(wanted, rel=1e-12)


def test_zhou() -> None:
    """A tenth every 40 000 of 160 000 iterations; the same as milestones."""
    step, same = Schedule.parse("step=40000"), Schedule.parse("milestones=40000/80000/120000")
    for iteration, power in ((39_999, 0), (40_000, 1), (119_999, 2), (120_000, 3), (159_999, 3)):
        assert step.factor(iteration, 160_000) == pytest.approx(10.0**-power, rel=1e-12)
        assert same.factor(iteration, 160_000) == step.factor(iteration, 160_000)


def test_constant_and_cosine() -> None:
    assert [Schedule().factor(i, 3) for i in range(3)] == [1, 1, 1]
    cosine = Schedule.parse("cosine")
    halves = [cosine.factor(i, 4) for i in range(4)]  # (1 + cos(0, 45, 90, 135 degrees)) / 2
    assert halves == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])


def test_warmup_multiplies() -> None:
    schedule = Schedule.parse("step=3:.5,warmup=4")
    wanted = [0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 0.25]
    assert [schedule.factor(i, 7) for i in range(7)] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("constant", "constant"),
        ("step=2000", "step=2000:0.1"),
        ("step=5:.5", "step=5:0.5"),
        ("milestones=5/50", "milestones=5/50:0.1"),
        ("milestones=7:.2, warmup=3", "milestones=7:0.2,warmup=3"),
        ("cosine,warmup=10", "cosine,warmup=10"),
        ("cosine,warmup=0", "cosine"),
    ],
)
def test_text(text: str, canonical: str) -> None:
    schedule = Schedule.parse(text)
    assert schedule.text == canonical
    assert Schedule.parse(canonical) == schedule


at = st.lists(st.integers(1, 60), min_size=1, unique=True).map(lambda values: tuple(sorted(values)))
drop = st.floats(0, 1, exclude_min=True)
schedules = st.one_of(
    st.builds(Schedule, st.just("step"), at.map(lambda values: values[:1]), drop),
    st.builds(Schedule, st.just("milestones"), at, drop),
    st.builds(Schedule, st.sampled_from(["constant", "cosine"])),
)


@given(schedules, st.integers(1, 80))
def test_without_warmup_it_starts_at_one_and_never_rises(schedule: Schedule, num: int) -> None:
    factors = [schedule.factor(i, num) for i in range(num)]
    assert factors[0] == 1
    assert all(a >= b >= 0 for a, b in pairwise(factors))
    assert Schedule.parse(schedule.text) == schedule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^--schedule  is not understood; expected constant, step=N, step=N:FACTOR, mile"),
        ("poly", r"^--schedule poly is not understood"),
        ("step", "step is not understood"),
        ("step=40k", "step=40k is not understood"),
        ("step=2.5", "step=2.5 is not understood"),
        ("step=5:", "step=5: is not understood"),
        ("cosine=3", "cosine=3 is not understood"),
        ("constant,warmup", "constant,warmup is not understood"),
        ("cosine,", "cosine, is not understood"),
        ("milestones=", "milestones= is not understood"),
        ("step=5,step=6", "step=5,step=6 is not understood"),
        ("step=0", r"^--schedule step=0: step takes whole numbers of iterations from 1 on, got 0"),
        ("milestones=0/5", "milestones takes whole numbers of iterations from 1 on, got 0/5"),
        ("milestones=5/3", r"milestones must rise, got 5/3\.$"),
        ("milestones=5/5", r"milestones must rise, got 5/5\.$"),
        ("step=5:0", r"the factor of step must be in \(0, 1\], got 0\.$"),
        ("step=5:nan", r"the factor of step must be in \(0, 1\], got nan\.$"),
        ("cosine,warmup=-1", r"warmup must be at least 0 iterations, got -1\.$"),
    ],
)
def test_what_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Schedule.parse(text)


@pytest.mark.parametrize("iteration", [-1, 5])
def test_iteration_of_no_run(iteration: int) -> None:
    with pytest.raises(TrainingError, match=rf"iteration must be in \[0, 5\), .* got {iteration}"):
        Schedule.parse("cosine").factor(iteration, 5)
