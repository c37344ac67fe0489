"""Sharing a finished run on the Hugging Face Hub.

    launcher push runs/first --dry-run      # writes the model card, lists what would be uploaded
    launcher push runs/first

`finished` reads what a run has left, `card` writes the model card from it, `paths` says what of its
configuration is local, `parcel` what is uploaded, `account` looks before a run starts whether it
could be, and `upload` does it.
"""
