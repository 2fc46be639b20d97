"""The verbs: trace, plan, apply, run, verify, load, evaluate. One verb a file, re-exported by `surgeon`.

Here the parts meet that do not know each other: a recipe's steps with a traced model, a plan with the
config's limits, a rebuilt module with a checkpoint folder. Not here: what any of them does.
"""
