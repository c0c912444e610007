"""BatchTopK: a batch keeps its k * B largest latents (Bussmann et al. 2024, arXiv 2412.06410)."""

from cpsae.sae.batch_topk import BatchTopKKind


class BatchTopK(BatchTopKKind):
    """a = f where f is among the batch's k * B largest (training) or f > threshold (inference)."""

    name = "batchtopk"
    works_split = True
