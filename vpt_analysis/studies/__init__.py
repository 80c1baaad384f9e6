"""Studies: what is trained and measured for claims and figures, cut into parts that are cached one by one.

A study is a module with ``config(tier)``, ``inputs(config)``, ``parts(config)`` and ``compute(part)``, as for a figure;
several figures and claims may draw on one study.
"""
