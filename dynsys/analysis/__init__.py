"""Analysis of a system or a series: Lyapunov exponents, dimensions, spectra, entropy, the 0-1 test, synchrony."""

from dynsys.analysis.dimension import CorrelationDimension, correlation_dimension
from dynsys.analysis.entropy import SampleEntropy, sample_entropy
from dynsys.analysis.exponent_from_data import ExponentFromData, maximal_exponent_from_data
from dynsys.analysis.lyapunov import LyapunovSpectrum, kaplan_yorke_dimension, lyapunov_spectrum
from dynsys.analysis.spectrum import autocorrelation, dominant_period, power_spectrum
from dynsys.analysis.synchrony import OrderParameter, kuramoto_order
from dynsys.analysis.zero_one import ZeroOneTest, zero_one_test

__all__ = [
    "CorrelationDimension",
    "ExponentFromData",
    "LyapunovSpectrum",
    "OrderParameter",
    "SampleEntropy",
    "ZeroOneTest",
    "autocorrelation",
    "correlation_dimension",
    "dominant_period",
    "kaplan_yorke_dimension",
    "kuramoto_order",
    "lyapunov_spectrum",
    "maximal_exponent_from_data",
    "power_spectrum",
    "sample_entropy",
    "zero_one_test",
]
