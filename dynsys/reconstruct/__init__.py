"""From a time series to a reconstruction: prepare, train, choose, score, save."""

from dynsys.reconstruct.pipeline import fit as fit
from dynsys.reconstruct.reconstruction import Outcome as Outcome, Reconstruction as Reconstruction, load as load
from dynsys.reconstruct.settings import FitSettings as FitSettings
