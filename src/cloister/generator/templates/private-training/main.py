"""Trains a classifier on a protected table. Gives out how good it is, a plot and the model; never a row.

--target COLUMN   the column to predict, with two different values (default: target)
--epochs N        how often to go through the rows (default: 20)
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from cloister import iapp
from cloister.errors import CloisterError, InputError

FEWEST_ROWS = 50
SEED = 11
"""Fixed, so that every enclave that runs this on the same data writes the same metrics."""


def check_table(table: pd.DataFrame, target: str) -> tuple[pd.DataFrame, pd.Series]:
    """The columns to learn from and the one to predict. Raises InputError with what is wrong."""
    if target not in table:
        raise InputError(f"the table has no column {target}; it has {', '.join(map(str, table))}")
    samples, labels = table.drop(columns=target), table[target]
    texts = list(samples.select_dtypes(exclude="number"))
    if texts or samples.empty:
        raise InputError(f"columns to learn from must be numbers; these are not: {', '.join(map(str, texts)) or 'all'}")
    if table.isna().to_numpy().any():
        raise InputError("the table has empty cells: fill them or leave those rows out")
    if labels.nunique() != 2 or labels.value_counts().min() < 2 or len(table) < FEWEST_ROWS:
        raise InputError(f"it takes {FEWEST_ROWS} rows, and two values of {target} that both occur more than once")
    return samples, labels


def train(samples: pd.DataFrame, labels: pd.Series, epochs: int) -> tuple[dict[str, Any], dict[str, Any], list[float]]:
    """Metrics on rows that the model has not seen, the model as plain numbers, and the loss after each epoch."""
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        samples.to_numpy(float), labels.to_numpy(), test_size=0.25, random_state=SEED, stratify=labels
    )
    scaler = StandardScaler().fit(seen)
    classifier = SGDClassifier(loss="log_loss", learning_rate="adaptive", eta0=0.05, random_state=SEED)
    losses = []
    for epoch in range(1, epochs + 1):
        classifier.partial_fit(scaler.transform(seen), seen_labels, classes=np.unique(seen_labels))
        losses.append(log_loss(unseen_labels, classifier.predict_proba(scaler.transform(unseen))))
        iapp.progress(epoch / epochs, f"epoch {epoch} of {epochs}")  # goes to who asked, sealed: no data in here
    chances = classifier.predict_proba(scaler.transform(unseen))[:, 1]
    metrics = {
        "rows": len(samples),
        "rows_scored": len(unseen),
        "accuracy": round(accuracy_score(unseen_labels, classifier.predict(scaler.transform(unseen))), 4),
        "roc_auc": round(roc_auc_score(unseen_labels, chances), 4),
        "log_loss": round(losses[-1], 4),
    }
    model = {
        "columns": list(samples),
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "weights": classifier.coef_[0],
        "intercept": classifier.intercept_[0],
        "classes": classifier.classes_,
    }
    return metrics, model, losses


def draw(losses: list[float]) -> Figure:
    """The loss after each epoch."""
    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, marker=".")
    axes.set(xlabel="epoch", ylabel="loss on unseen rows")
    return figure


def main() -> None:
    """Read, train, write. The first file written is the one that all workers must agree on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="target")
    parser.add_argument("--epochs", type=int, default=20, choices=range(1, 1001), metavar="1-1000")
    options = parser.parse_args(iapp.args())
    samples, labels = check_table(iapp.dataframe(), options.target)
    metrics, model, losses = train(samples, labels, options.epochs)
    iapp.write("metrics.json", metrics)
    iapp.write("model.json", model)
    iapp.plot(draw(losses), "loss.png")


if __name__ == "__main__":
    try:
        main()
    except CloisterError as error:
        sys.exit(f"cannot train: {error.message}")
