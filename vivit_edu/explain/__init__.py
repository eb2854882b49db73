"""Attention maps and other maps of a trained model, built by hand in chapter 13.

`weights` takes them out of the attention layers, `rollout` follows them from the logits to the tokens, `relevance` and
`occlusion` ask the logit of a class, `faithfulness` measures how far a map can be believed.
"""

from .faithfulness import METHODS, all_maps, contrast_map, faithfulness, organ_scores
from .occlusion import masked_logits, occlusion
from .relevance import input_gradient, relevance
from .rollout import rollout, to_voxels
from .weights import AttentionMap, attention_maps, recorded_attention

__all__ = [
    "METHODS",
    "AttentionMap",
    "all_maps",
    "attention_maps",
    "contrast_map",
    "faithfulness",
    "input_gradient",
    "masked_logits",
    "occlusion",
    "organ_scores",
    "recorded_attention",
    "relevance",
    "rollout",
    "to_voxels",
]
