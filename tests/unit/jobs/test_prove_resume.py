"""What the proof of a resume compares, and what it says."""

from dataclasses import replace

from sdft.jobs.prove_resume import ProveResult, Trained, differences

ONE = Trained(
    digests={"unet.safetensors": "a", "optimizer.safetensors": "b"},
    figures=((1, 0.5, 1.0, 0.1, 1), (2, 0.25, 1.0, 0.1, 1)),
    step_s=0.1,
    machine={"threads": "1"},
)


def test_equal_trainings_have_no_differences():
    assert differences(ONE, replace(ONE)) == []


def test_the_first_step_that_differs_is_named_with_every_digit():
    other = replace(ONE, figures=(ONE.figures[0], (2, 0.2500000001, 1.0, 0.1, 1)))
    assert differences(ONE, other) == ["step 2 first: loss 0.25, and 0.2500000001"]


def test_files_that_differ_or_are_missing_are_counted_and_named():
    other = replace(ONE, digests={"unet.safetensors": "x", "ema.safetensors": "c"})
    (said,) = differences(ONE, other)
    assert said.startswith("3 of 3 files of the state: ")
    assert "ema.safetensors" in said


def test_a_run_with_fewer_steps_differs():
    assert differences(ONE, replace(ONE, figures=ONE.figures[:1])) == ["2 steps, and 1"]


def test_the_verdict_says_what_deterministic_costs():
    result = ProveResult(
        steps=20,
        deterministic=True,
        repeats=True,
        exact=True,
        kills=(3, 9),
        differences=(),
        step_s=0.12,
        plain_step_s=0.1,
        machine={"threads": "1"},
        folder=None,
    )
    words = result.words()
    assert "makes a step +20 % longer" in words
    assert "killed 2 times, after steps 3, 9" in words
    assert words.splitlines()[-1].startswith("EXACT")
    broken = replace(result, exact=False, differences=("step 4 first: loss 1, and 2",))
    assert broken.words().splitlines()[-1] == "NOT EXACT"
