"""Handwritten digits, told apart pixel by pixel by Orchid and by a transformer of as many parameters.

The images are those that come with scikit-learn (Alpaydin and Kaynak, Optical recognition of handwritten
digits, UCI, 1998): 1797 of 8 × 8 pixels.
"""
