"""The maths of the autoencoder. Its modules import torch; this file does not."""
