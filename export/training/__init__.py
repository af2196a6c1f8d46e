"""From a forward graph to the graphs of a bundle."""
