"""Probes: how well a classifier on frozen features tells action from non-action snippets.

A protocol of the linear probe is a file with two functions, check and probe, and its entry here;
temporal_head.py is the second probe. The module is a guest: its weights, its mode and the global
random state stay as they are.
"""

from sola.probe import logistic, sgd

PROTOCOLS = {"logistic_regression": logistic, "sgd": sgd}
