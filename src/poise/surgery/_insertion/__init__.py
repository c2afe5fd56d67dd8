"""From the network methods of a recipe and a graph to edits: where each layer goes, and why."""
