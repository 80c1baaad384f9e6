"""Prompts as mixture-of-experts regression: symbolic proofs, estimators, losses on mixing measures, rates."""
