"""The stages as a person calls them from Python: settings as keywords, progress shown.

`cpsae.fit(store, preset="topk", k=16)` does what `cpsae fit --preset topk --set k=16` does. What
runs is cpsae.stages; programs that put settings together themselves may call that.
"""
