"""vivit_edu: the helper package of a course that builds the Video Vision Transformer.

Names are exported lazily: `import vivit_edu` itself loads nothing, and each name loads its
module when it is first used. So medmnist, torchvision, sklearn and matplotlib cost nothing to
those who do not need them.
"""

from importlib import import_module

__version__ = "0.1.0"

# module -> the names it exports, from the ground up (imports run the other way, never back)
_EXPORTS = {
    "errors": ["VivitEduError", "DataError", "ConfigError", "CheckpointError", "TrainingError"],
    "volumes": ["Volumes", "Split", "Mirror", "describe", "find_mirror_axis"],
    "data": ["load_volumes", "course_volumes"],
    "datasets.video": ["load_clip", "load_videos"],
    "embedding": ["TubeletEmbedding", "FrameEmbedding"],
    "attention": ["MultiHeadAttention", "FactorisedDotProductAttention"],
    "cnn": ["predict_video"],
    "models": ["build_model", "MODELS"],
    "pretrained": ["load_pretrained"],
    "augment": ["Augmentation", "augment_batch", "predict_views"],
    "cost": ["count_parameters", "count_flops"],
    "training": ["Recipe", "History", "Metrics", "fit", "evaluate"],
    "explain": [
        "AttentionMap",
        "attention_maps",
        "rollout",
        "relevance",
        "occlusion",
        "input_gradient",
        "faithfulness",
        "organ_scores",
    ],
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'vivit_edu' has no attribute {name!r}")
    value = getattr(import_module(f"vivit_edu.{_HOME[name]}"), name)
    globals()[name] = value  # the next look-up finds it at once
    return value


def __dir__():
    return sorted({*globals(), *__all__})
