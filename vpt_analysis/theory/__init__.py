"""Prompts as mixture-of-experts regression: proofs by computer algebra, estimators, losses on mixing measures, rates."""
