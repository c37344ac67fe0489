"""Building blocks for recipes: data, randomness, precision, optimizers, the training step.

Nothing here knows of hooks, plugins, configuration files or the command line: functions take
the values they need. Importing this package imports no framework.
"""
