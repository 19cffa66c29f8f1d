"""Associative recall: which value went with this key? Learned by Orchid, a static filter, and attention.

Karami and Ghodsi, Orchid, NeurIPS 2024, arXiv:2402.18508, section 4.1; the task is that of Ba et al., Using
fast weights to attend to the recent past, NeurIPS 2016, in the form of Poli et al., Hyena, ICML 2023.
"""
