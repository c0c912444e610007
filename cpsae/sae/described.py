"""What an autoencoder is, under the names that the field has for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class SAEConfig:
    """Read-only; None where it is not known, as of a store that was made from arrays."""

    architecture: str
    """The kind of autoencoder."""
    d_in: int
    """Dimensions of a vector."""
    d_sae: int
    """Features of the dictionary, enabled or not."""
    n_enabled: int
    """Features that were trained."""
    normalize_activations: str
    """How vectors are scaled before the encoder: layer, layer-variance, unit, sqrt-d, none."""
    model_name: str | None
    model_revision: str | None
    hook_name: str | None
    """As TransformerLens calls the place: blocks.19.hook_resid_post."""
    hook_layer: int | None
    """The block, counted from 0."""
    context_size: int | None
    """Tokens of a context, BOS included."""
    dataset_path: str | None
    constants: Mapping[str, Any] = field(default_factory=dict)
    """The kind's own: k, temperature, threshold."""
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def kind(self) -> str:
        """`architecture`, as cpsae calls it."""
        return self.architecture

    @classmethod
    def of(cls, description: Mapping[str, Any], dtype: str, device: str) -> "SAEConfig":
        """description: what sae.json holds."""
        hook = description["hook"]
        layer = hook.get("layer")
        named = {"kind", "d", "n_latents", "n_enabled", "normalization", "hook"}
        return cls(
            architecture=description["kind"],
            d_in=description["d"],
            d_sae=description["n_latents"],
            n_enabled=description["n_enabled"],
            normalize_activations=description["normalization"]["name"],
            model_name=hook.get("model"),
            model_revision=hook.get("model_revision"),
            hook_name=None
            if layer is None
            else f"blocks.{layer}.hook_{hook.get('name', 'resid_post')}",
            hook_layer=layer,
            context_size=hook.get("tokens"),
            dataset_path=hook.get("dataset"),
            constants={key: v for key, v in description.items() if key not in named},
            dtype=dtype,
            device=device,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        place = f"{self.hook_name or 'rows of arrays'}"
        of = f" of {self.model_name}" if self.model_name else ""
        some = "" if self.n_enabled == self.d_sae else f" ({self.n_enabled} enabled)"
        return (
            f"{self.architecture}, d_in {self.d_in}, d_sae {self.d_sae}{some}, {place}{of}, "
            f"normalize {self.normalize_activations}, {self.dtype} on {self.device}"
        )
