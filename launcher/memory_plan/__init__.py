"""How much memory a run takes, counted before it is made: `launcher plan`.

`accounting` counts bytes of parameters, gradients and optimizer state; `survey` builds the models
of a run without weights, through its hooks; `plan` puts the two together and compares alternatives;
`table` writes it all down.
"""
