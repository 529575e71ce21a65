"""Speed and memory of every stage and of the shipped pipelines, at full size, against what was set."""
