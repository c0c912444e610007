"""What SAEBench takes: a SAELens folder, of rows that it can make itself.

Its evaluations take SAELens' objects as they are. They decode twice what they have encoded once
(SCR, TPP), and SAELens' layer_norm forgets the rows after the first time; pipelines/saebench
evaluates such runs without an export.
"""

from dataclasses import replace

from cpsae.interop.exported import Files
from cpsae.interop.folded import refuse_rows
from cpsae.interop.origin import Origin
from cpsae.interop.sae_lens import export as export_for_sae_lens
from cpsae.sae.autoencoder import SparseAutoencoder


def export(sae: SparseAutoencoder, origin: Origin) -> Files:
    """Raises ExportError where the kind says no form, rows are normalised one by one, or the model
    or layer is not known."""
    refuse_rows(sae, "SAEBench", "fit with --set normalize=unit, or use pipelines/saebench")
    origin.refuse_unknown("SAEBench")
    files = export_for_sae_lens(sae, origin)
    name = f'("cpsae", {files.load.rpartition("; ")[2]})'
    before = "import cpsae.interop.saelens_classes; " if "; " in files.load else ""
    return replace(files, load=f"{before}selected_saes = [{name}]")
