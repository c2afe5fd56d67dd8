"""How tensors flow through a network, recorded from a run, and what its nodes are."""
