"""Whether substitutes bring gradients of their own.

They save time, and keep what they need from the forward pass. In recomputed blocks that is the
very thing that is not wanted, and MindSpore's graph can become cyclic by it ("Graph cycle
exists"): there the gradients are left to MindSpore.
"""

#: Set before anything is compiled.
written_out = True
