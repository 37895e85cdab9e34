from mmseg_volo.backbones.coatnet import CoAtNet
from mmseg_volo.backbones.metaformer import CAFormer, ConvFormer, IdentityFormer, PoolFormerV2, RandFormer
from mmseg_volo.backbones.t2t_vit import T2TViT
from mmseg_volo.backbones.volo import VOLO

__all__ = ['CAFormer', 'CoAtNet', 'ConvFormer', 'IdentityFormer', 'PoolFormerV2', 'RandFormer', 'T2TViT', 'VOLO']
