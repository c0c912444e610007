"""The method in float64 numpy and plain loops, written from METHOD.md alone: no cpsae, no torch."""

import math
from dataclasses import dataclass, field

import numpy as np


def encoder(w_e, b_e, x):
    """f = ReLU(W_e x + b_e) of one vector; w_e: (n, d)."""
    return np.maximum(w_e.astype(np.float64) @ x.astype(np.float64) + b_e.astype(np.float64), 0.0)


def alpha(f, temperature, over="enabled"):
    """Eq. 5 of one vector."""
    counted = [i for i in range(len(f)) if over == "enabled" or f[i] > 0]
    a = np.zeros(len(f))
    if not counted:
        return a
    largest = max(f[i] / temperature for i in counted)
    total = sum(math.exp(f[i] / temperature - largest) for i in counted)
    for i in counted:
        a[i] = math.exp(f[i] / temperature - largest) / total * f[i]
    return a


def loss(x, w_e, b_e, w_d, b_d, temperature, l1, over="enabled", l1_on="competed"):
    """Eq. 1 and 2 averaged over a batch; w_d: (d, n)."""
    total = 0.0
    for row in x:
        f = encoder(w_e, b_e, row)
        a = alpha(f, temperature, over)
        error = row - (w_d @ a + b_d)
        total += error @ error + l1 * np.abs(a if l1_on == "competed" else f).sum()
    return total / len(x)


def growth(rho, n, rule="hybrid"):
    """Eq. 4."""
    if rule == "none":
        return 0
    if rule == "fixed" or rho < 0.3:
        return 5
    if rho < 0.6:
        return min(7, max(2, math.floor(0.10 * n * rho)))
    return min(10, max(4, math.floor(0.15 * n * rho)))


def t_base(step, anneal_steps, base=0.1, start=0.3):
    """Reading 8."""
    if anneal_steps == 0 or step >= anneal_steps:
        return base
    return start + (base - start) * step / anneal_steps


def equation_6(rho, step, anneal_steps, s=0.3, low=0.05, high=0.3):
    """Eq. 6, clamped."""
    t = t_base(step, anneal_steps) * (1 + (math.exp(math.exp(rho) - 1) - 1) * s)
    return min(high, max(low, t))


@dataclass
class Run:
    """METHOD section 3's progressive and competitive state, in its "order within a run"."""

    n: int
    anneal_steps: int = 2000
    utilisation: str = "mean"
    rule: str = "hybrid"
    growth_every: int = 1
    step: int = 0
    n_enabled: int = 0
    temperature: float = 0.0
    rho: float = 0.0
    v: list = field(default_factory=list)

    def __post_init__(self):
        self.n_enabled = self.n if self.rule == "none" else max(1, math.floor(0.25 * self.n))
        self.temperature = equation_6(0.0, 0, self.anneal_steps)
        self.v = [0.0] * self.n

    def after_update(self, f):
        """f: (B, n_(t-1)) that the update just used."""
        self.step += 1
        for i in range(self.n_enabled):
            fired = [1.0 if abs(row[i]) > 0.01 else 0.0 for row in f]
            indicator = max(fired) if self.utilisation == "any" else sum(fired) / len(fired)
            self.v[i] = 0.9 * self.v[i] + (1 - 0.9) * indicator
        self.rho = sum(self.v[: self.n_enabled]) / self.n_enabled
        target = equation_6(self.rho, self.step, self.anneal_steps)
        self.temperature = 0.99 * self.temperature + 0.01 * target
        if self.step % self.growth_every == 0:
            self.n_enabled = min(self.n, self.n_enabled + growth(self.rho, self.n, self.rule))
