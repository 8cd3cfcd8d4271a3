"""Probes: how well a classifier on frozen features tells action from non-action snippets.

protocols.py lists those of the linear probe; temporal_head.py is the second probe. The module is a
guest: its weights, its mode and the global random state stay as they are.
"""
