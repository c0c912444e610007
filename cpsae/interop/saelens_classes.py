"""SAELens classes of the forms that SAELens has not, registered where this module is imported:
then `sae_lens.SAE.load_from_disk` and `from_pretrained` find them. Needs sae-lens (the extra
`sae-lens`).

Names: D dimensions, N latents; shapes (..., D) mean any leading dimensions.
"""

from dataclasses import dataclass
from typing import Literal

from sae_lens import SAEConfig, StandardSAE, register_sae_class
from sae_lens.registry import SAE_CLASS_REGISTRY
from torch import Tensor

from cpsae.sae.competition import compete


@dataclass
class SoftmaxSAEConfig(SAEConfig):  # type: ignore[misc]
    """Temperature, and which latents share the softmax."""

    temperature: float = 1.0
    over: Literal["enabled", "active"] = "enabled"

    @classmethod
    def architecture(cls) -> str:
        """As cfg.json names it."""
        return "cpsae_softmax"


class SoftmaxSAE(StandardSAE):  # type: ignore[misc]
    """a = softmax(f / temperature) * f, f = ReLU(z): the kind `competitive`."""

    cfg: SoftmaxSAEConfig

    def encode(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., N)."""
        z = self.hook_sae_acts_pre(self.process_sae_in(x) @ self.W_enc + self.b_enc)
        a = compete(self.activation_fn(z), self.cfg.temperature, self.cfg.over)
        acts: Tensor = self.hook_sae_acts_post(a)
        return acts

    def fold_W_dec_norm(self) -> None:
        """The softmax compares latents, so that none can be scaled by itself."""
        raise NotImplementedError("latents that compete cannot be scaled one by one")


@dataclass
class LCASAEConfig(SAEConfig):  # type: ignore[misc]
    """Both thresholds, and how strongly latents inhibit each other."""

    first_threshold: float = 0.0
    threshold: float = 0.0
    inhibition: float = 0.3

    @classmethod
    def architecture(cls) -> str:
        """As cfg.json names it."""
        return "cpsae_lca"


class LCASAE(StandardSAE):  # type: ignore[misc]
    """a = ReLU(z + inhibition W_dec (x - x_hat_0)) above `threshold`, x_hat_0 being what ReLU(z)
    above `first_threshold` reconstructs: the kind `lca-batchtopk`, of the preset `frontier`."""

    cfg: LCASAEConfig

    def encode(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., N)."""
        x = self.process_sae_in(x)
        z = self.hook_sae_acts_pre(x @ self.W_enc + self.b_enc)
        first = self.activation_fn(z)
        first = first * (first > self.cfg.first_threshold)
        rest = x - (first @ self.W_dec + self.b_dec)
        second = self.activation_fn(z + self.cfg.inhibition * (rest @ self.W_dec.T))
        acts: Tensor = self.hook_sae_acts_post(second * (second > self.cfg.threshold))
        return acts

    def fold_W_dec_norm(self) -> None:
        """Inhibition goes through decoder vectors of norm 1, which they have."""
        raise NotImplementedError("latents that compete cannot be scaled one by one")


for _class, _config in ((SoftmaxSAE, SoftmaxSAEConfig), (LCASAE, LCASAEConfig)):
    if _config.architecture() not in SAE_CLASS_REGISTRY:  # where this module is loaded anew
        register_sae_class(_config.architecture(), _class, _config)
