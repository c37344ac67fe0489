"""The recipe `flux_controlnet`: training a FLUX.1 ControlNet.

`recipe` holds the hook implementations; the other modules hold what they call.
"""
