"""The one table of architectures: what each is called, what it is made of, and what it can.

Whoever asks what an architecture can looks at a field here. Nets are named, not imported: coding by one
architecture loads its modules alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """One kind of codec.

    Attributes:
        name: in options, configs and lists of models.
        compressai: CompressAI's name, if it has one; a weights file with a hyperprior holds it as `arch`.
        transforms: module and class of g_a and g_s.
        schema: module and function that holds a weights file against what is needed.
        entropy_model: module and class of what codes y.
        latent_unit: y and ŷ are integers in this fraction of a step.
        sends_distributions: each image's own distributions of y go ahead of it.
        has_hyperprior: scales of y come from ẑ.
        has_means: so do means of y; where they do not, h_a sees the magnitude of y.
        has_context: both come from latents decoded before, too.
        search: module and function by which an encoder can search for better latents; "" for none.
        usual_effort: rounds of that search where nothing else is asked for.
        is_exact: it decodes to the same pixels everywhere, without PyTorch, and a file's checksum is theirs.
        has_attention: its nets are those of Cheng et al. 2020.
        least_channels: of N and M.
        stages: of its training, in their order: name, and module and class in licodec/training/stages.
        export: module in licodec/training/convert, and the function that makes tensors of a checkpoint.
        alpha: weight of the regularizer in paper 2.
    """

    name: str
    compressai: str
    transforms: str = "licodec.networks.tiled:TiledTransforms"
    schema: str = "licodec.weights.schema:check"
    entropy_model: str = "licodec.entropy.hyperprior:Hyperprior"
    latent_unit: int = 64
    sends_distributions: bool = False
    has_hyperprior: bool = True
    has_means: bool = True
    has_context: bool = False
    search: str = ""
    usual_effort: int = 0
    is_exact: bool = False
    has_attention: bool = False
    least_channels: int = 1
    stages: tuple[tuple[str, str], ...] = (
        ("transforms", "transforms:HyperpriorStage"),
        ("rate", "rate:RateStage"),
        ("distributions", "distributions:ZDistributionsStage"),
    )
    export: str = "export_hyperprior:hyperprior_state"
    alpha: float = 0.0


FACTORIZED = Architecture(
    "factorized",
    "bmshj2018-factorized",
    latent_unit=1,
    has_hyperprior=False,
    has_means=False,
    entropy_model="licodec.entropy.tabled:Factorized",
    stages=(
        ("transforms", "transforms:TransformsStage"),
        ("distributions", "distributions:DistributionsStage"),
        ("joint", "distributions:JointStage"),
    ),
    export="export_factorized:factorized_tensors",
)
ADAPTIVE = Architecture(
    "adaptive",
    "bmshj2018-factorized",
    latent_unit=1,
    has_hyperprior=False,
    has_means=False,
    entropy_model="licodec.entropy.tabled:Adaptive",
    sends_distributions=True,
    stages=FACTORIZED.stages,
    export=FACTORIZED.export,
)
SCALE_HYPERPRIOR = Architecture(
    "scale-hyperprior",
    "bmshj2018-hyperprior",
    has_means=False,
    search="licodec.latent_search:search",
    usual_effort=5,
    alpha=0.1,
)
HYPERPRIOR = Architecture(
    "hyperprior", "mbt2018-mean", search=SCALE_HYPERPRIOR.search, usual_effort=5, alpha=0.1
)
AUTOREGRESSIVE = Architecture(
    "autoregressive",
    "mbt2018",
    has_context=True,
    alpha=1.0,
    stages=(*HYPERPRIOR.stages, ("context", "rate:ContextStage")),
)
ATTENTION = Architecture(
    "attention",
    "cheng2020-attn",
    has_context=True,
    has_attention=True,
    least_channels=2,
    alpha=1.0,
    transforms="licodec.networks.attention:AttentionTransforms",
)

EVERYDAY = Architecture(
    "everyday",
    "",
    latent_unit=16,
    is_exact=True,
    search="licodec.rdo_quantization:search",
    usual_effort=1,
    transforms="licodec.networks.everyday:EverydayTransforms",
    schema="licodec.weights.everyday_schema:check",
    entropy_model="licodec.entropy.quadtree:Quadtree",
    stages=(("transforms", "everyday:EverydayStage"), ("rate", "everyday:EverydayRateStage")),
    export="export_everyday:everyday_tensors",
)

TABLE = (EVERYDAY, ADAPTIVE, FACTORIZED, SCALE_HYPERPRIOR, HYPERPRIOR, AUTOREGRESSIVE, ATTENTION)
"""The default first."""
BY_NAME = {a.name: a for a in TABLE}
BY_COMPRESSAI = {a.compressai: a for a in TABLE if a.has_hyperprior and a.compressai}
BY_ARCH = {**BY_COMPRESSAI, EVERYDAY.name: EVERYDAY}
"""Those of which a weights file tells by its `arch`; other files have none."""
