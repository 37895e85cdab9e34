from mmseg_volo.models.losses.weighted_cross_entropy import WeightedCrossEntropy

__all__ = ['WeightedCrossEntropy']
