"""From a model's folder to its traced forward graph, without weights."""
