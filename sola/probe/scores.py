"""Figures of a binary classifier."""

import numpy as np

Scores = dict[str, float | int]


def figures(decision: np.ndarray, labels: np.ndarray) -> Scores:
    """Of a classifier that says action where decision [N] is positive; labels: bool [N]."""
    from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

    share = labels.mean()
    return {
        "accuracy": float(((decision > 0) == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, decision > 0)),
        "roc_auc": float(roc_auc_score(labels, decision)),
        "average_precision": float(average_precision_score(labels, decision)),
        "majority_share": float(max(share, 1 - share)),
        "snippets": len(labels),
    }
