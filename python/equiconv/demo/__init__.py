"""A small language model, trained with plain PyTorch and with equiconv: ``python -m equiconv demo``."""
