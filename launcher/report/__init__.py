"""The report: one HTML page about one run, or about several side by side.

`run` reads what a run has left, by `lines` and `files`. `figures` sums it up, `downsample` and
`axes` turn figures into what a chart of some hundred pixels can show, `chart` draws it with the
lines of `drawing`, `images` brings the validations' images to a size, and `page` puts all of it
together with `sections`. All HTML is made by `html`, which escapes what is not HTML.
"""
