"""The stages as one calls them: from the command line, from Python, from the demo.

Each puts together what belongs to it: folders and locks, the work, its evaluation, its files. They
are apart, so that `fit` runs where there is no language model and nothing to run one with; only
`evaluate` may meet both again, when it is asked for a model.
"""
