"""Training samples of real anatomies: named label maps, deformed, cut into slices and rendered in random styles.

That random appearance of real label maps is enough to learn to segment real images was shown by SynthSeg (Billot et
al. 2023, doi:10.1016/j.media.2023.102789) for brains, and by anatomix (Dey et al. 2024, arXiv:2411.02372) for random
ensembles of shapes. The label maps are an argument; none is in the package (`docs/evidence/model_card.md` lists those
of the shipped weights).
"""

from causal_sam.phantom.bodies.samples import BodySample, BodySampler, LabelledBody

__all__ = ["BodySample", "BodySampler", "LabelledBody"]
