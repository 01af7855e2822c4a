"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: the production agent and sandbox on mock data."""

from pathlib import Path

import pandas as pd
import pytest
from main import check_table, train

from cloister import rehearse
from cloister.errors import InputError

APP = Path(__file__).parent.parent
LOANS = pd.read_parquet(APP / "mock" / "loans.parquet")


def test_it_trains_and_says_how_well() -> None:
    run = rehearse(APP, args="--target defaulted --epochs 5")
    assert run.cause is None, run.stderr
    metrics = run.json("metrics.json")
    assert metrics["rows"] == len(LOANS)
    assert metrics["roc_auc"] > 0.75
    assert run.json("model.json")["columns"] == [name for name in LOANS if name != "defaulted"]
    assert run.read("loss.png").startswith(b"\x89PNG")
    assert run.progress[-1] == (1.0, "epoch 5 of 5")


def test_the_same_rows_give_the_same_metrics() -> None:
    samples, labels = check_table(LOANS, "defaulted")
    assert train(samples, labels, 3)[0] == train(samples, labels, 3)[0]


def test_a_signal_is_found_and_noise_is_not() -> None:
    samples = pd.DataFrame({"signal": range(400), "noise": [7 * row % 11 for row in range(400)]})
    metrics, model, _ = train(samples, (samples["signal"] >= 200).astype(int), 20)
    assert metrics["roc_auc"] > 0.99
    assert abs(model["weights"][0]) > 10 * abs(model["weights"][1])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (LOANS, "no column target; it has age, income"),
        (LOANS.assign(target="x"), "two values of target"),
        (LOANS.assign(target=LOANS["defaulted"], town="Oslo"), "these are not: town"),
        (LOANS.assign(target=LOANS["defaulted"], age=None), "age"),
        (LOANS.rename(columns={"defaulted": "target"}).head(20), "it takes 50 rows"),
    ],
)
def test_other_tables_are_refused_in_plain_words(table: pd.DataFrame, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_table(table, "target")


def test_the_refusal_reaches_the_log() -> None:
    run = rehearse(APP, data={"notes": "no table"})
    assert run.cause == "APP_COMPUTE_FAILED"
    assert "cannot train: no table in the protected data: there is notes" in run.stderr
