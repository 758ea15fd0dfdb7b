"""The diagnosis on made-up curves: what holds is said, what chance explains is not."""

import math
import random

import pytest

from inflate.train.diagnosis import (
    against_image_model,
    captions_equal,
    colour_drift,
    diagnose,
    diverging,
    loss_flat,
    motion,
    nothing_learned,
    overfitting,
    rate_outside,
    trend,
)


def _noisy(curve, spread, seed=0):
    generator = random.Random(seed)
    return [value + generator.gauss(0, spread) for value in curve]


FALLING = [1 / (1 + 0.05 * update) for update in range(200)]
FLAT = [0.5] * 200


def test_a_trend_is_measured_against_its_noise():
    found = trend(_noisy(FALLING, 0.05))
    assert found is not None and found.fell and not found.rose
    same = trend(FLAT)
    assert same is not None and same.error == 0 and not same.fell and not same.rose
    assert trend([1.0] * 19) is None
    # Of 300 flat noisy curves hardly one may count as falling or rising: 3 standard errors are passed in 0.3 % of them.
    wrong = [trend(_noisy(FLAT, 0.2, seed)) for seed in range(300)]
    assert sum(one.fell or one.rose for one in wrong if one is not None) <= 4


def test_the_error_is_that_of_a_difference_of_means():
    draws = [trend(_noisy(FLAT, 0.2, seed)) for seed in range(400)]
    differences = [one.first - one.last for one in draws if one is not None]
    measured = math.sqrt(sum(value * value for value in differences) / len(differences))
    assert measured == pytest.approx(0.2 * math.sqrt(2 / 40), rel=0.1)
    assert sum(one.error for one in draws if one is not None) / len(draws) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("losses", "validation", "said"),
    [
        (_noisy(FLAT, 0.02), [], True),
        (_noisy(FALLING, 0.05), [], False),
        (_noisy(FLAT, 0.5), [], False),  # so noisy that a fall would not be seen
        (FLAT[:10], [], False),  # too few
        (_noisy(FLAT, 0.02), [0.5, 0.45, 0.4], False),  # what is held out decides
        (_noisy(FALLING, 0.05), [0.5, 0.5, 0.4999], True),
        (_noisy(FALLING, 0.05), [0.5, 0.6], True),
        ([], [0.5], False),
    ],
)
def test_flat(losses, validation, said):
    found = loss_flat(losses, validation)
    assert (found is not None) is said
    if found is not None:
        assert "has not fallen" in found.sentence and "learning_rate" in found.sentence


def test_nothing_learned():
    found = nothing_learned([0.0, 0.0], [], 2)
    assert found is not None and "train.learning_rate is 0: nothing has been learned" in found.sentence
    found = nothing_learned([1e-4], [0.0, 0.0], 40)
    assert found is not None and "still are the identity after 40 updates: nothing has been learned" in found.sentence
    assert nothing_learned([1e-4], [0.0], 5) is None  # too early to tell
    assert nothing_learned([1e-4], [0.0, 1e-3], 40) is None
    assert nothing_learned([], [], 0) is None


def test_diverging():
    rising = [1.0 - 0.01 * update for update in range(50)] + [0.5 + 0.05 * update for update in range(50)]
    found = diverging(_noisy(rising, 0.02), 3e-3)
    assert found is not None and "The loss is rising: 0." in found.sentence
    assert "set train.learning_rate to 0.001 (it is 0.003)" in found.sentence
    assert diverging(_noisy(FALLING, 0.05), 1e-3) is None
    assert diverging(_noisy(FLAT, 0.02), 1e-3) is None
    # Alone with noise of its own height, the highest window lies above the lowest by chance only.
    assert sum(diverging(_noisy([1.0] * 200, 0.3, seed), 1e-3) is not None for seed in range(100)) == 0
    found = diverging([0.5, math.nan], 1e-3)
    assert found is not None and "not a number" in found.sentence


def test_overfitting_and_the_image_model():
    found = overfitting([0, 10, 20, 30], [1.0, 0.8, 0.85, 0.95])
    assert found is not None and "lowest at update 10 (0.8000) and has risen to 0.9500" in found.sentence
    assert overfitting([0, 10, 20, 30], [1.0, 0.8, 0.79, 0.8]) is None
    assert overfitting([0, 10, 20], [1.0, 1.1, 1.2]) is None  # that is flat or diverging
    assert overfitting([0, 10], [1.0, 0.5]) is None
    found = against_image_model(0.5, 0.4)
    assert found is not None and "frame by frame (0.4000)" in found.sentence
    assert against_image_model(0.39, 0.4) is None


@pytest.mark.parametrize(
    ("sample", "data", "name"),
    [(0.001, 0.02, "static"), (0.02, 0.02, "motion"), (0.008, 0.02, None), (0.1, 0.02, "flicker"), (0.1, 0.0, None)],
)
def test_motion(sample, data, name):
    found = motion(sample, data)
    assert (found.name if found else None) == name
    assert found is None or found.good is (name == "motion")


def test_colour_captions_and_rates():
    assert colour_drift(0.02) is None and colour_drift(0.2, 0.15) is None
    found = colour_drift(0.2, 0.01)
    assert found is not None and "drifts by 0.20" in found.sentence
    found = captions_equal(12.0, 1.0)  # as a log has numbers
    assert found is not None and "All 12 clips have the same caption" in found.sentence
    assert captions_equal(12, 2) is None and captions_equal(1, 1) is None
    found = rate_outside(24, 24, 4, 12)
    assert found is not None and "at 24 frames per second and trained at between 4 and 12" in found.sentence
    assert rate_outside(8, 8, 8, 8) is None and rate_outside(4, 12, 4, 12) is None
    assert rate_outside(2, 8, 4, 12) is not None


def _lines(losses, **more):
    return [
        {"update": n + 1, "seconds": 0.0, "loss": loss, "learning_rate": 1e-3, **more} for n, loss in enumerate(losses)
    ]


def test_a_good_run_is_called_good():
    lines = _lines(_noisy(FALLING, 0.02), temporal_change=0.2, sample_motion=0.02, data_motion=0.02)
    lines.insert(0, {"update": 0, "validation_loss": 1.0, "image_model_loss": 0.9})
    lines[-1] |= {"validation_loss": 0.5, "image_model_loss": 0.9}
    found = {finding.name: finding for finding in diagnose(lines)}
    assert set(found) == {"motion", "learned"} and all(finding.good for finding in found.values())
    assert "fell from 1.0000 to 0.5000 (50.0 %); the image model alone has 0.9000" in found["learned"].sentence


def test_all_that_is_wrong_is_said_at_once():
    facts = {
        "sample_motion": 0.001,
        "data_motion": 0.1,
        "sample_colour_drift": 0.3,
        "captions": 5,
        "distinct_captions": 1,
        "clip_fps_lowest": 30,
        "clip_fps_highest": 30,
        "trained_fps_lowest": 8,
        "trained_fps_highest": 8,
    }
    lines = _lines(_noisy(FLAT, 0.02), temporal_change=0.0)
    names = [finding.name for finding in diagnose(lines, facts)]
    assert names == ["nothing-learned", "static", "captions-equal", "rate-outside", "colour-drift"]
    assert [finding.name for finding in diagnose(_lines(_noisy(FLAT, 0.02)))] == ["loss-flat"]


def test_a_loss_that_was_no_number_and_no_lines_at_all():
    assert [finding.name for finding in diagnose(_lines([0.5, 0.5, None]))] == ["diverging"]
    assert diagnose([]) == []
    assert diagnose(_lines([0.5])) == []


def test_facts_newer_than_the_last_line_count():
    lines = _lines([0.5] * 5, sample_motion=0.001, data_motion=0.1)
    assert [finding.name for finding in diagnose(lines)] == ["static"]
    assert [finding.name for finding in diagnose(lines, {"sample_motion": 0.1})] == ["motion"]


def test_nothing_is_compared_before_there_was_training() -> None:
    start = {"update": 0, "validation_loss": 0.3, "image_model_loss": 0.3}
    later = [{"update": n, "loss": 0.3, "learning_rate": 1e-4, "temporal_change": 1e-3} for n in range(1, 30)]
    names = {finding.name for finding in diagnose([start, *later])}
    assert "no-better-than-frames" not in names
    measured = {"update": 30, "validation_loss": 0.3, "image_model_loss": 0.3}
    assert "no-better-than-frames" in {finding.name for finding in diagnose([start, *later, measured])}
