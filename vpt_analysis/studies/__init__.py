"""Studies: what is trained and measured for claims and figures, cut into parts that are cached one by one.

``vpt_analysis.study`` says what a study is, and runs them; several figures and claims may draw on one. Results of full
runs are stored in ``committed``.
"""
