"""vivit_edu: the helper package of a course that builds the Video Vision Transformer.

Names are exported lazily: `import vivit_edu` itself loads nothing, and each name loads its
module when it is first used. So medmnist, torchvision, sklearn and matplotlib cost nothing to
those who do not need them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers read; nothing of it runs
    from .attention import FactorisedDotProductAttention as FactorisedDotProductAttention
    from .attention import MultiHeadAttention as MultiHeadAttention
    from .augment import Augmentation as Augmentation
    from .augment import augment_batch as augment_batch
    from .augment import predict_views as predict_views
    from .cnn import predict_video as predict_video
    from .cost import count_flops as count_flops
    from .cost import count_parameters as count_parameters
    from .data import course_volumes as course_volumes
    from .data import load_volumes as load_volumes
    from .datasets.bars import walking_bars as walking_bars
    from .datasets.video import load_clip as load_clip
    from .datasets.video import load_videos as load_videos
    from .embedding import FrameEmbedding as FrameEmbedding
    from .embedding import TubeletEmbedding as TubeletEmbedding
    from .errors import CheckpointError as CheckpointError
    from .errors import ConfigError as ConfigError
    from .errors import DataError as DataError
    from .errors import TrainingError as TrainingError
    from .errors import VivitEduError as VivitEduError
    from .explain import AttentionMap as AttentionMap
    from .explain import attention_maps as attention_maps
    from .explain import faithfulness as faithfulness
    from .explain import input_gradient as input_gradient
    from .explain import occlusion as occlusion
    from .explain import organ_scores as organ_scores
    from .explain import relevance as relevance
    from .explain import rollout as rollout
    from .models import MODELS as MODELS
    from .models import build_model as build_model
    from .pretrained import load_pretrained as load_pretrained
    from .support.devices import best_device as best_device
    from .training import History as History
    from .training import Metrics as Metrics
    from .training import Recipe as Recipe
    from .training import evaluate as evaluate
    from .training import fit as fit
    from .volumes import Mirror as Mirror
    from .volumes import Split as Split
    from .volumes import Volumes as Volumes
    from .volumes import describe as describe
    from .volumes import find_mirror_axis as find_mirror_axis

__version__ = "0.1.0"

# module -> the names it exports, from the ground up (imports run the other way, never back)
_EXPORTS = {
    "errors": ["VivitEduError", "DataError", "ConfigError", "CheckpointError", "TrainingError"],
    "volumes": ["Volumes", "Split", "Mirror", "describe", "find_mirror_axis"],
    "data": ["load_volumes", "course_volumes"],
    "datasets.bars": ["walking_bars"],
    "datasets.video": ["load_clip", "load_videos"],
    "embedding": ["TubeletEmbedding", "FrameEmbedding"],
    "attention": ["MultiHeadAttention", "FactorisedDotProductAttention"],
    "cnn": ["predict_video"],
    "models": ["build_model", "MODELS"],
    "pretrained": ["load_pretrained"],
    "augment": ["Augmentation", "augment_batch", "predict_views"],
    "cost": ["count_parameters", "count_flops"],
    "support.devices": ["best_device"],
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
