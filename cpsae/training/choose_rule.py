"""Which step rule a run takes."""

import torch

from cpsae.sae.kind import Kind
from cpsae.training.dense_rule import Dense, serves
from cpsae.training.rules import StepRule, autograd
from cpsae.training.sparse_rule import PAYS_BELOW, sparse


def rule_for(kind: Kind, device: torch.device) -> StepRule:
    """The rule that is faster: on CPUs `sparse` for kinds that keep few latents and `Dense` for
    those that it serves, else `autograd`. The same for every update of a run, wherever it is
    resumed."""
    if device.type == "cpu" and kind.share_kept() <= PAYS_BELOW:
        return sparse
    return Dense() if device.type == "cpu" and serves(kind) else autograd


def latent_copies(rule: StepRule) -> float:
    """How many (B, N) float32 tensors an update holds at its peak, about, as measured; what it
    makes of them for figures and utilisation included."""
    if rule is autograd:
        return 14
    return 5.3 if isinstance(rule, Dense) else 7.3
