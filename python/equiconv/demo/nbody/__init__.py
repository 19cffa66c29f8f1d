"""Five charged particles, whose motion PONITA learns, with plain PyTorch and with equiconv.

Satorras et al., E(n) Equivariant Graph Neural Networks, ICML 2021, arXiv:2102.09844, section 5.1: the task of
Kipf et al., Neural Relational Inference, ICML 2018, in three dimensions.
"""
