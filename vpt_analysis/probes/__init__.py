"""Probes: each measures one thing about any prompt mechanism on any backbone."""
