"""What happens to data before training: trend, smoothing, downsampling, scaling, delay embedding; and the way back."""

from dynsys.prepare.embedding import embed as embed
from dynsys.prepare.lazy import LazyRows as LazyRows
from dynsys.prepare.noise import suggest_noise_level as suggest_noise_level
from dynsys.prepare.preparation import Preparation as Preparation, Prepared as Prepared
from dynsys.prepare.settings import PreparationConfig as PreparationConfig
