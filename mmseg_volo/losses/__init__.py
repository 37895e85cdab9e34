from mmseg_volo.losses.weighted_cross_entropy import WeightedCrossEntropy

__all__ = ['WeightedCrossEntropy']
