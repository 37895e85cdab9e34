from mmseg_volo.models.backbones.coatnet import CoAtNet
from mmseg_volo.models.backbones.metaformer import CAFormer, ConvFormer, IdentityFormer, PoolFormerV2, RandFormer
from mmseg_volo.models.backbones.t2t_vit import T2TViT
from mmseg_volo.models.backbones.volo import VOLO

__all__ = ['CAFormer', 'CoAtNet', 'ConvFormer', 'IdentityFormer', 'PoolFormerV2', 'RandFormer', 'T2TViT', 'VOLO']
