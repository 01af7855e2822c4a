"""Trains and scores a classifier on a protected table of tumours; writes metrics, a confusion matrix and the model.

The table has 30 numeric columns and ``target`` (0 malignant, 1 benign). The split is fixed,
so two enclaves that run the same bundle on the same data write the same metrics.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("MPLCONFIGDIR", "/tmp/matplotlib")
os.environ.setdefault("MPLBACKEND", "Agg")

import joblib
import matplotlib.pyplot as plt
import numpy
import pyarrow.parquet as parquet
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, confusion_matrix, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cloister.datasets.reader import ProtectedDataReader

TEST_SHARE = 0.25
SEED = 569


def main() -> int:
    """Train, score, write; returns the exit code."""
    out = Path(os.environ["IEXEC_OUT"])
    with ProtectedDataReader() as data:
        entry = next((entry.path for entry in data.entries() if entry.path.endswith(".parquet")), None)
        if entry is None:
            print("the protected data holds no Parquet table", file=sys.stderr)
            return 2
        with data.open(entry) as file:
            table = parquet.read_table(file)
    features = [name for name in table.column_names if name != "target"]
    if "target" not in table.column_names:
        print("the protected table has no column named target", file=sys.stderr)
        return 2
    samples = numpy.column_stack([table.column(name).to_numpy() for name in features])
    labels = table.column("target").to_numpy()
    print(f"{len(labels)} patients, {len(features)} features")

    train_x, test_x, train_y, test_y = train_test_split(
        samples, labels, test_size=TEST_SHARE, random_state=SEED, stratify=labels
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(train_x, train_y)
    predicted = model.predict(test_x)
    matrix = confusion_matrix(test_y, predicted)
    metrics = {
        "patients": len(labels),
        "trained_on": len(train_y),
        "scored_on": len(test_y),
        "accuracy": round(float(accuracy_score(test_y, predicted)), 6),
        "roc_auc": round(float(roc_auc_score(test_y, model.predict_proba(test_x)[:, 1])), 6),
        "confusion_matrix": matrix.tolist(),
        "labels": ["malignant", "benign"],
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True))

    display = ConfusionMatrixDisplay(matrix, display_labels=metrics["labels"])
    display.plot(cmap="Blues", colorbar=False)
    plt.title(f"{len(test_y)} patients the model had not seen: {metrics['accuracy']:.1%} right")
    plt.tight_layout()
    plt.savefig(out / "confusion_matrix.png", dpi=120, metadata={"Software": None})
    joblib.dump(model, out / "model.joblib")

    (out / "computed.json").write_text(json.dumps({"deterministic-output-path": str(out / "metrics.json")}))
    print(f"accuracy {metrics['accuracy']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
