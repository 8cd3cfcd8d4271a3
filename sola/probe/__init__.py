"""Linear probes: how well a linear classifier tells action from non-action snippets.

A protocol is a file with two functions, check and probe, and its entry here. The module is a guest:
its weights, its mode and the global random state stay as they are.
"""

from sola.probe import logistic, sgd

PROTOCOLS = {"logistic_regression": logistic, "sgd": sgd}
