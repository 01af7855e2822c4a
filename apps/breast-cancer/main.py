"""Trains and scores a classifier on a protected table of tumours; writes metrics, a confusion matrix and the model.

The table has 30 numeric columns and ``target`` (0 malignant, 1 benign). The split is fixed,
so two enclaves that run the same bundle on the same data write the same metrics.
"""

from __future__ import annotations

import sys

import joblib
import numpy
import pyarrow.parquet as parquet
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, confusion_matrix, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cloister import iapp

TEST_SHARE = 0.25
SEED = 569


def main() -> None:
    """Train, score, write."""
    with iapp.data() as data:
        entry = next((entry.path for entry in data.entries() if entry.path.endswith(".parquet")), None)
        if entry is None:
            sys.exit("the protected data holds no Parquet table")
        with data.open(entry) as file:
            table = parquet.read_table(file)
    if "target" not in table.column_names:
        sys.exit("the protected table has no column named target")
    features = [name for name in table.column_names if name != "target"]
    samples = numpy.column_stack([table.column(name).to_numpy() for name in features])
    labels = table.column("target").to_numpy()
    print(f"{len(labels)} patients, {len(features)} features")
    iapp.progress(0.3, f"training on {len(labels)} patients")

    train_x, test_x, train_y, test_y = train_test_split(
        samples, labels, test_size=TEST_SHARE, random_state=SEED, stratify=labels
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(train_x, train_y)
    predicted = model.predict(test_x)
    matrix = confusion_matrix(test_y, predicted)
    accuracy = float(accuracy_score(test_y, predicted))
    labels_shown = ["malignant", "benign"]
    iapp.write(
        "metrics.json",
        {
            "patients": len(labels),
            "trained_on": len(train_y),
            "scored_on": len(test_y),
            "accuracy": round(accuracy, 6),
            "roc_auc": round(float(roc_auc_score(test_y, model.predict_proba(test_x)[:, 1])), 6),
            "confusion_matrix": matrix,
            "labels": labels_shown,
        },
    )

    display = ConfusionMatrixDisplay(matrix, display_labels=labels_shown).plot(cmap="Blues", colorbar=False)
    display.ax_.set_title(f"{len(test_y)} patients the model had not seen: {accuracy:.1%} right")
    display.figure_.tight_layout()
    iapp.plot(display, "confusion_matrix.png", dpi=120)
    joblib.dump(model, iapp.output("model.joblib"))
    print(f"accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
