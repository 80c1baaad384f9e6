"""Kernel-target alignment on kernels whose alignment is known."""

from __future__ import annotations

import numpy as np
import pytest

from vpt_analysis.probes.alignment import estimated_alignment, kernel_alignment


def test_alignment_of_known_kernels():
    y = np.array([2, 2, 5, 5, 5, 9])
    rng = np.random.default_rng(0)
    for c, label in enumerate((2, 5, 9)):
        own = (y == label).astype(float)
        assert kernel_alignment(np.outer(own, own), y)[c] == pytest.approx(1)
        orthogonal = np.linalg.qr(np.stack([np.ones(6), own, rng.standard_normal(6)], 1))[0][:, 2]
        assert kernel_alignment(np.outer(orthogonal, orthogonal), y)[c] == pytest.approx(0, abs=1e-12)
    kernel = rng.standard_normal((6, 4))
    kernel = kernel @ kernel.T
    base, order = kernel_alignment(kernel, y), rng.permutation(6)
    assert np.allclose(kernel_alignment(3 * kernel + 7, y), base)
    assert np.allclose(kernel_alignment(kernel[np.ix_(order, order)], y[order]), base)
    assert np.isnan(kernel_alignment(np.ones((6, 6)), y)).all()
    assert np.allclose(estimated_alignment(np.stack([kernel] * 4), y).estimate, base)
    for labels, match in ((y[:3], "one integer for each of 6"), (y / 2, "float64"), (y * 0, "all images are of one")):
        with pytest.raises(ValueError, match=match):
            kernel_alignment(kernel, labels)
