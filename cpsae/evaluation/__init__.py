"""How good an autoencoder is: metrics of the store's held-out part, what its reconstructions do to
the language model, and what features fire on."""
