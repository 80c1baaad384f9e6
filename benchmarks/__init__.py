"""Speed and memory beside the plain model and its peers: ratios of medians, interleaved, in one run."""
