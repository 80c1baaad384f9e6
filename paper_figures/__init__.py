"""The paper's figures, one module each. ``vpt-analysis figures`` draws them; see ``_registry`` for what a figure is."""
