"""What the FLUX recipes share: loading the parts of a pipeline, prompts, latents, flow matching.

Importing the package imports no framework; functions import what they need.
"""
