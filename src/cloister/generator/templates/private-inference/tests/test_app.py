"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: the production agent and sandbox on mock data."""

import json
from pathlib import Path

import pytest
from main import parse_model, parse_rows

from cloister import rehearse
from cloister.errors import InputError

APP = Path(__file__).parent.parent
MODEL = json.loads((APP / "mock" / "model" / "model.json").read_text("utf-8"))
SMALL = {
    "columns": ["a", "b"],
    "mean": [1, 0],
    "scale": [2, 1],
    "weights": [1, -1],
    "intercept": 0,
    "classes": ["no", "yes"],
}


def test_only_predictions_leave_the_enclave() -> None:
    run = rehearse(APP)
    assert run.cause is None, run.stderr
    assert set(run.files) == {"predictions.json", "computed.json"}
    assert [one["class"] for one in run.json("predictions.json")] == [0, 1, 0]
    assert set(run.json("predictions.json")[0]) == {"class", "chance"}
    written = "".join((run.stdout, run.stderr, *(content.decode() for content in run.files.values())))
    assert not any(str(weight)[:6] in written for weight in MODEL["weights"])


def test_a_prediction_is_the_logistic_function_of_the_scaled_row() -> None:
    model = parse_model(json.dumps(SMALL))
    rows = parse_rows(["b,extra,a", "0,x,1", "0,x,7", "9,x,1"], model.columns)
    assert model.predict(rows) == [
        {"class": "yes", "chance": 0.5},
        {"class": "yes", "chance": 1.0},  # 1 / (1 + exp(-3)) = 0.953
        {"class": "no", "chance": 0.0},
    ]


@pytest.mark.parametrize(
    "change",
    [{"columns": ["a"]}, {"scale": [0, 1]}, {"weights": ["x", 1]}, {"mean": [float("nan"), 1]}, {"classes": [1]}],
)
def test_a_model_of_another_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"model\.json does not read"):
        parse_model(json.dumps(SMALL | change))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column a, b"),
        ("a,c\n1,2", "no column b"),
        ("a,b", "no rows"),
        ("a,b\n1,2\n1,", "row 2 .* no number"),
        ("a,b\n1,inf", "not finite"),
        ("a,b\n" + "1,2\n" * 101, "more than 100 rows"),
    ],
)
def test_rows_of_another_shape_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_rows(text.splitlines(), ("a", "b"))


def test_a_missing_input_file_is_told_in_plain_words() -> None:
    run = rehearse(APP, private_files=[])
    assert run.cause == "APP_COMPUTE_FAILED"
    assert "no prediction: no input file 1" in run.stderr
