"""How good an autoencoder is: metrics from the store's held-out part, and what features fire on."""
